"""What a run leaves behind: its folder, checkpoints, metrics, costs, curves and rollout logs."""
