#!/bin/sh
# An environment of its own for clip-retrieval, which wants older libraries than winnow: clip_retrieval.sh FOLDER
# It borrows torch and open_clip from the environment that winnow runs in, so that both compute with the same.
set -eu
winnow=$(dirname "$0")/../../.venv/bin/python
[ -x "$winnow" ] || winnow=$(command -v python)
"$winnow" -m venv "$1"
site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$winnow" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/borrowed.pth"
"$1/bin/python" -m pip install --quiet --no-deps clip-retrieval==2.45.0 all_clip==1.3.0 clip-anytorch==2.6.0 \
    autofaiss==2.18.0 embedding-reader==1.8.1 sentence-transformers==2.7.0 multilingual-clip==1.0.10
"$1/bin/python" -m pip install --quiet "flask<4" flask-restful "flask-cors<5" h5py faiss-cpu scikit-learn
