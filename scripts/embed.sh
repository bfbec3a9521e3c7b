#!/bin/sh
# SPDX-License-Identifier: MIT
#
# embed.sh NAME FILE: prints a C source with the bytes of FILE, and a zero, as `const char NAME[]`.
set -eu

echo "/* Made by scripts/embed.sh from ${2##*/}. */"
echo "extern const char $1[];"
echo "const char $1[] = {"
# char is signed here and unsigned there: a cast fits both.
od -An -v -tu1 "$2" | sed 's/\([0-9][0-9]*\)/(char)\1,/g'
echo "0 };"
