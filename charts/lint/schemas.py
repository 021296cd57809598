"""Holds rendered manifests to the schemas of Kubernetes, strictly: schemas.py [--crd FILE]... --kubernetes VERSION... FILE...

A field that the schema does not know, a key that is there twice and a kind without a schema are errors, and so is an admission policy that
nothing binds, which would refuse nothing. Kinds that Kubernetes itself does not have are held to the CustomResourceDefinitions that are
given. Rules in CEL are the apiserver's, and not looked at.
"""

import argparse
import sys

import jsonschema
import kubernetes_validate

from manifests import documents


def closed(schema, root=True):
    """A structural schema of a CRD as JSON Schema that takes no field it does not name."""
    made = {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties", "format", "nullable")}
    properties = {name: closed(value, False) for name, value in schema.get("properties", {}).items()}
    if root:
        # the API machinery's own
        properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    if properties:
        made["properties"] = properties
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = closed(schema["additionalProperties"], False)
    if isinstance(schema.get("items"), dict):
        made["items"] = closed(schema["items"], False)
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def custom(paths):
    """The schemas in CRDs, by apiVersion and kind: the versions that the apiserver serves."""
    found = {}
    for definition in (document for path in paths for document in documents(path)):
        spec = definition["spec"]
        for version in (version for version in spec["versions"] if version["served"]):
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    return found


def check(document, version, customs):
    """What is wrong with a document, or nothing."""
    schema = customs.get((document.get("apiVersion"), document.get("kind")))
    try:
        if schema is not None:
            jsonschema.Draft202012Validator(schema).validate(document)
        else:
            used = kubernetes_validate.validate(document, version, strict=True)
            # it takes the newest that it has when it lacks the one that was asked for
            if used != version:
                return f"there is no schema of Kubernetes {version}, the nearest is {used}"
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.path)) or 'the document'}: {error.message[:300]}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"it does not know {document['apiVersion']} {document['kind']}, and no CRD was given"
    return None


def unbound(found):
    """The admission policies among these documents that no binding of theirs names."""
    names = set()
    for kind in ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"):
        bound = {document["spec"]["policyName"] for document in found if document["kind"] == f"{kind}Binding"}
        names |= {f"{kind} {document['metadata']['name']}" for document in found if document["kind"] == kind and document["metadata"]["name"] not in bound}
    return names


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--crd", action="append", default=[])
    arguments.add_argument("--kubernetes", action="append", required=True)
    arguments.add_argument("files", nargs="+")
    given = arguments.parse_args()
    customs, seen, wrong = custom(given.crd), set(), 0
    for path in given.files:
        found = documents(path)
        for name in sorted(unbound(found)):
            wrong += 1
            print(f"{path}: nothing binds {name}", file=sys.stderr)
        for document in found:
            text = repr(document)
            if text in seen:
                continue
            seen.add(text)
            reasons = {version: check(document, version, customs) for version in given.kubernetes}
            for reason in sorted(set(reasons.values()) - {None}):
                wrong += 1
                versions = ", ".join(version for version in reasons if reasons[version] == reason)
                print(f"{path}: {document.get('kind')} {document.get('metadata', {}).get('name')}, Kubernetes {versions}: {reason}", file=sys.stderr)
    if not seen:
        sys.exit("no document in " + ", ".join(given.files))
    print(f"{len(seen)} manifests fit the schemas of Kubernetes {', '.join(given.kubernetes)}" if not wrong else f"{wrong} errors")
    sys.exit(1 if wrong else 0)


main()
