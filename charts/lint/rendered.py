"""Writes a rendered chart in the one form in which it is compared: rendered.py FILE

Objects by kind, namespace and name, their keys sorted. The order of documents, comments and whitespace are lost; nothing else is.
"""

import sys

import yaml

from manifests import documents


class Dumper(yaml.SafeDumper):
    """YAML without anchors, since each object is read by itself, and with short lists and mappings in one line."""

    def ignore_aliases(self, data):
        return True

    def represent_sequence(self, tag, sequence, flow_style=None):
        return self.short(super().represent_sequence(tag, sequence, flow_style), repr(sequence))

    def represent_mapping(self, tag, mapping, flow_style=None):
        return self.short(super().represent_mapping(tag, mapping, flow_style), repr(mapping))

    @staticmethod
    def short(node, text):
        node.flow_style = node.flow_style and len(text) <= 120
        return node


def place(document):
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def main():
    found = sorted(documents(sys.argv[1]), key=place)
    # a string stays in one line however long it is, so that a diff shows what changed and not how it is wrapped
    yaml.dump_all(found, sys.stdout, Dumper, default_flow_style=None, explicit_start=True, sort_keys=True, allow_unicode=True, width=float("inf"))


main()
