#!/bin/sh
# SPDX-License-Identifier: MIT
#
# prelink-archive.sh INPUT.a OUTPUT.a
#
# Links all objects of INPUT into one and makes its hidden symbols local, so that a program
# linked statically can neither reach nor collide with the library's internals.
set -eu

input=$1
output=$2
object=${output%.a}-prelinked.o
trap 'rm -f "$object"' EXIT

"${LD:-ld}" -r --whole-archive "$input" -o "$object"
"${OBJCOPY:-objcopy}" --localize-hidden "$object"
rm -f "$output"
"${AR:-ar}" rcsD "$output" "$object"
