"""What is measured: one module a group of works, each of which registers itself with measure.work."""
import importlib
import pkgutil

for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{module}")
