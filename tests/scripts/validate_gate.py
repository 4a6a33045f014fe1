"""Validates what `stitchback gate -o` wrote against the official schemas.

    python tests/scripts/validate_gate.py [--junit-xsd junit-10.xsd] verdict.sarif verdict.junit.xml ...

Needs `pip install jsonschema lxml`. The SARIF 2.1.0 schema (OASIS) is the one that the crate serde-sarif carries: `cargo
metadata` says where. There is no official schema of JUnit; the strictest in use is `junit-10.xsd` of the Jenkins plugin
xunit (src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd in its repository), to be given with `--junit-xsd`.
Each `testsuite` is validated: the writer puts an attribute `skipped` on the root, which that schema does not know.
"""

import argparse
import json
import pathlib
import subprocess
import sys


def sarif_schema() -> dict:
    version = subprocess.check_output(["rustc", "-vV"], text=True)
    host = next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))
    # Crates of other platforms may not be there.
    command = ["cargo", "metadata", "--format-version", "1", "--offline", "--filter-platform", host]
    metadata = json.loads(subprocess.check_output(command))
    crate = next(p for p in metadata["packages"] if p["name"] == "serde-sarif")
    return json.loads((pathlib.Path(crate["manifest_path"]).parent / "src" / "schema.json").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--junit-xsd", type=pathlib.Path)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    problems = 0
    for path in arguments.files:
        if path.name.endswith(".sarif"):
            import jsonschema

            validator = jsonschema.Draft7Validator(sarif_schema(), format_checker=jsonschema.FormatChecker())
            found = [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(json.loads(path.read_text()))]
        elif path.name.endswith(".xml"):
            from lxml import etree

            tree = etree.parse(str(path))
            if arguments.junit_xsd is None:
                sys.exit("give --junit-xsd FILE to validate JUnit")
            schema = etree.XMLSchema(etree.parse(str(arguments.junit_xsd)))
            found = [str(e) for suite in tree.getroot() if not schema.validate(suite) for e in schema.error_log]
        else:
            sys.exit(f"{path}: neither .sarif nor .xml")
        problems += len(found)
        print(f"{path}: {'valid' if not found else 'INVALID'}")
        for problem in found[:20]:
            print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
