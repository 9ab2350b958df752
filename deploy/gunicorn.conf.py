"""gunicorn instead of Waitress, on Linux. In the environment of Corkboard: python -m pip install gunicorn

    python -m gunicorn --config deploy/gunicorn.conf.py wsgi:app

In corkboard.service, ExecStart is then
    /opt/corkboard/.venv/bin/python -m gunicorn --config deploy/gunicorn.conf.py wsgi:app
and corkboard-jobs.service runs beside it: the workers run no jobs. nginx has to stand in front (nginx.conf), because
gunicorn reads a body while it arrives, and refuses fewer unclear requests than wsgi.py does.
"""

import database

bind = "127.0.0.1:8000"  # HOST and PORT are wsgi.py's
workers = 2  # processes; with SQLite 1 is enough, because one writes at a time
threads = 8  # in each of them, as THREADS says
worker_class = "gthread"
timeout = 60  # seconds, after which a worker that does nothing any more is replaced
graceful_timeout = 30  # for the requests in hand when it stops
secure_scheme_headers: dict[str, str] = {}  # Corkboard itself decides, by TRUSTED_PROXY, what a proxy may say
umask = 0o077


def post_worker_init(worker):
    """Hold the data folder, so that no upgrade begins while this worker serves."""
    with worker.app.callable.app_context():
        worker.data_folder = database.lock_data_folder(alone=False)
