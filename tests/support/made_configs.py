"""The default configuration with some fields changed."""

from configs import default


def changed(**fields):
    config = default.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config
