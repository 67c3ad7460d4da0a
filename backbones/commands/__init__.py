"""Commands of ``python -m backbones``: a module or folder for each, with ``main(arguments)``."""
