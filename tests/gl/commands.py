"""Commands for a program under test come as files, one after the other, and are done one after the other.

NUMBER.command says what to do; the picture then goes to NUMBER.png, and NUMBER.done says that it is complete."""
import os
import time

PLACE = os.environ["COMMANDS"]


def is_complete(picture):
    """Its writer may be in the middle of it; the last piece of a PNG is always the same."""
    try:
        with open(picture, "rb") as file:
            return file.read().endswith(b"IEND\xaeB`\x82")
    except FileNotFoundError:
        return False


def serve(execute):
    """`execute` does what it is told, and makes the picture in the file of the second argument."""
    number = 0
    while True:
        number += 1
        path = f"{PLACE}/{number}"
        while not os.path.exists(f"{path}.command"):
            time.sleep(0.02)
        with open(f"{path}.command") as command:
            execute(command.read(), f"{path}.png")
        while not is_complete(f"{path}.png"):
            time.sleep(0.02)
        open(f"{path}.done", "w").close()
