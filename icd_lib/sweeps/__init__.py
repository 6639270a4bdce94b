"""Many runs that differ in some options: what they are, what became of them, and which of them to take."""
