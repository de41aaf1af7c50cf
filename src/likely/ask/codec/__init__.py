"""Lossless codes from a model's own probabilities.

- `frequencies`: from log-probabilities to integers, and the stack of bits that they write to;
- `turns`: a model's conditionals one after another, the same for who writes and who reads;
- `schemes`: how examples of each kind of density are written, bits back where there is a choice;
- `container`: the file: header, blocks, checksums.
"""
