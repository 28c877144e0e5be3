"""The gateway: a policy or any evaluated router behind OpenAI's protocol."""
