"""What `--mode` names: one module or package each."""
