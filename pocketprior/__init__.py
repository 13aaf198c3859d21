"""PocketPrior: diffusion texture priors for photo restoration on phones and laptops.

    from pocketprior import Restorer, read_photo, write_photo

    restorer = Restorer.from_pack()
    write_photo(restorer.photo(read_photo("photo.jpg")), "restored.jpg")

Arrays go in and out as well: `restorer(image)` takes (H, W, 3) uint8 or uint16.
"""

from pkgutil import extend_path

# Python started in a clone finds this folder before the installed package, and in a clone the layers lie elsewhere.
__path__ = extend_path(__path__, __name__)

from .core.errors import PocketPriorError
from .core.pack.manifest import Manifest
from .core.photo.io import read as read_photo
from .core.photo.io import write as write_photo
from .core.photo.photo import Photo
from .core.restore.restorer import Restorer

__all__ = [
    "Manifest",
    "Photo",
    "PocketPriorError",
    "Restorer",
    "__version__",
    "read_photo",
    "write_photo",
]

__version__ = "0.1.0"
