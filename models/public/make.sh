#!/bin/sh
# Makes minilm-wordnet.safetensors again: every n-th usage example of WordNet, encoded.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download wordnet-base=1:3.0-37
dpkg -x wordnet-base_*.deb .
for part in noun verb adj adv; do cat "usr/share/wordnet/data.$part"; done | LC_ALL=C awk '
    /^  / { next }
    {
        gloss = substr($0, index($0, "|") + 1)
        while (match(gloss, /"[^"]+"/)) {
            text = substr(gloss, RSTART + 1, RLENGTH - 2)
            gloss = substr(gloss, RSTART + RLENGTH)
            if (split(text, words, " ") >= 5 && length(text) >= 20 && length(text) <= 120) kept[n++] = text
        }
    }
    END { for (i = 0; i < 1536; i++) print kept[int(i * n / 1536)] }' > examples.txt
"${STITCHBACK:-stitchback}" embed --encoder all-minilm-l6-v2 --input examples.txt --output "$here/minilm-wordnet.safetensors"
