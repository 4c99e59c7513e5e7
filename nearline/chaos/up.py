"""`nearline up` as the adversary starts it, with settings from the environment alone: `python -m nearline.chaos.up`."""

from nearline import log
from nearline.settings.settings import load_settings
from nearline.up.runtime import run_up

if __name__ == "__main__":
    settings = load_settings(None, None, serve__port=0)
    log.configure("up", settings.log_level)
    run_up(settings, process_module="nearline.chaos.process")
