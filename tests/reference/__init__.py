"""The slow paths: each computes in about twenty plain lines what a fast path of `bystander.lm` computes."""
