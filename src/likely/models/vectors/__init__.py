"""Networks on vectors: FVSBN, NADE, DeepNADE, MADE."""
