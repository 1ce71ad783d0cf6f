"""How good reconstructions are: protocols, scores, intervals, and whether training had seen the answers."""
