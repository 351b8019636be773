"""Speed and memory against stock llama-cpp-python."""
