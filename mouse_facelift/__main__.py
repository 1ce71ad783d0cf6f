"""`python -m mouse_facelift`, for launchers such as `accelerate launch -m`."""

from .cli import main

if __name__ == "__main__":
    main()
