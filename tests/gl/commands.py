"""Commands for a program under test come as files, one after the other, and are done one after the other.

NUMBER.command says what to do; the picture then goes to NUMBER.png, and NUMBER.done says that it is complete."""
import os
import time

PLACE = os.environ["COMMANDS"]


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
        while not os.path.exists(f"{path}.png"):
            time.sleep(0.02)
        open(f"{path}.done", "w").close()
