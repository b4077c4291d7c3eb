"""What the policy is asked: problem sets, their tokenizer, and how a question becomes a prompt."""
