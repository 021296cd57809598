"""Reads rendered manifests as the apiserver would."""

import sys

import yaml


class OnceLoader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error, as it is to the apiserver."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


# `=` alone is a string to Kubernetes, and an unknown type to PyYAML
OnceLoader.add_constructor("tag:yaml.org,2002:value", OnceLoader.construct_yaml_str)


def documents(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [document for document in yaml.load_all(file, Loader=OnceLoader) if document]
    except yaml.YAMLError as error:
        sys.exit(f"{path}: {error}")
