"""Total reward and reachability: graph analysis, sound iteration, inductive proofs."""
