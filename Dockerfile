# The project in a container, from the same pins:
#   docker build -t icd . && docker run --rm -v "$PWD/outputs:/icd/outputs" icd
FROM python:3.11-slim

# make drives the project, git names the commit in the manifest, g++ is what torch.compile calls.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /icd
COPY pyproject.toml constraints.txt ./
# The CPU build of the pinned torch; the default index carries the CUDA one, several gigabytes larger.
RUN torch=$(grep '^torch==' constraints.txt) \
    && python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$torch"
COPY . .
RUN make venv
# The texts of calibration and quality; without npm the dictionary is left out, and a badge says so.
RUN .venv/bin/python -m icd_lib.data.fetch --optional

ENTRYPOINT ["make"]
CMD ["run"]
