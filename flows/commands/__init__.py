"""What a person types: each module gives some of the commands, and `flows.cli` puts them together."""
