"""MoMKE: one transformer per modality, and routers that mix what each of them knows."""
