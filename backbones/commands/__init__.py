"""What ``python -m backbones COMMAND`` can do: one module per command, each with ``main(arguments)``."""
