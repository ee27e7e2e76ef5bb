"""What the notebook imports; notebooks/README.md says which file serves which step."""
