"""What Corkboard is compared with: the smallest Flask application on the same server. `bare.py PORT`"""

import logging
import sys

from flask import Flask
from waitress import serve

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return "hello"


if __name__ == "__main__":
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # as Corkboard does
    serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=8, ident=None)
