"""What can be set: a file is an area, and a public name in it a setting; `torchturbo._catalogue` finds them here."""
