#!/bin/bash
# run.sh RUNTIME [ARG...] - builds the validation suite where it is not built yet, and runs it against RUNTIME (see run.py).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runtime=$1
shift
suite=$("$here/build.sh")
exec python3 "$here/run.py" --suite "$suite" --runtime "$runtime" "$@"
