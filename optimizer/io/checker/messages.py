"""What ``onnx.checker`` complains about, in one line that says what to do."""

from __future__ import annotations

import re

_REPAIR = "export the model again"
_CONTEXT = re.compile(r"\s*==> Context: Bad node spec for node\. Name: ?(.*?) ?OpType: (\S*)")
_KNOWN = [
    (r"No Op registered for (\S+) with domain_version of (\d+)",
     "operator {0} does not exist in version {1} of its operator set", "correct the opset import, or export again"),
    (r"Op registered for (\S+) is deprecated in domain_version of (\d+)",
     "operator {0} was removed in version {1} of its operator set", "correct the opset import, or export again"),
    (r"No (?:opset import|Opset registered) for domain '?([^']*)'?",
     "the operator set {0!r} is used, but not imported", "add it to opset_import"),
    (r"static single assignment.*", "", _REPAIR),
    (r"however '(.*?)' has been used", "value {0!r} is defined twice", _REPAIR),
    (r"(.*) initializer name is not unique", "there are two initializers {0!r}", _REPAIR),
    (r"^(.*) sparse initializer name is not unique", "there are two initializers {0!r}", _REPAIR),
    (r"Graph output '(.*)' is not an output of any node", "output {0!r} is produced by no node", _REPAIR),
    (r"duplicate keys in metadata_props", "metadata_props has a key twice", "remove one of them"),
    (r"initializers must have a non-empty name|Field 'name' of 'init'", "an initializer has no name", _REPAIR),
    (r"Cycle detected in model-local function references: (.*?)\.? Model-local",
     "functions call each other in a circle: {0}", _REPAIR),
    (r"multiple local functions with the same implementation id '(.*?)'", "there are two functions {0!r}", _REPAIR),
    (r"Unable to parse proto", "its subgraphs are nested too deeply", "flatten them"),
]  # fmt: skip


def explained(complaint: str) -> str:
    """A complaint of the checker as one line: what was found, where, and what to do."""
    text = " ".join(complaint.split())
    context = _CONTEXT.search(text)
    text = _CONTEXT.sub("", text).strip().rstrip(".")
    finding, remedy = text[:300], _REPAIR
    for pattern, meaning, advice in _KNOWN:
        if meaning and (match := re.search(pattern, text)) is not None:
            finding, remedy = meaning.format(*match.groups()), advice
            break
    where = f" (node {context[1]!r}, {context[2]})" if context and context[1] else f" ({context[2]})" if context else ""
    return f"{finding}{where}; {remedy}"
