"""What is opened around code: a file is a region, declared as an option like any setting."""
