"""Chat with a decoder folder that ICD wrote: an export for OpenVINO, a GGUF file, or an optimised model.

    python examples/chat.py outputs/smollm2/best
    python examples/chat.py outputs/smollm2/best --once "Why is the sky blue?"

The answer is the likeliest one, token by token. An empty line ends the conversation.
"""

import argparse
import sys
import time

from icd_lib.decoding.chat import answer
from icd_lib.decoding.folder import check_chat, open_folder, stop_tokens
from icd_lib.errors import IcdError


def say(pieces) -> str:
    """Print pieces as they come; the whole text, with how long it took below."""
    began, first, said = time.perf_counter(), None, []
    for piece in pieces:
        first = first or time.perf_counter()
        said.append(piece)
        print(piece, end="", flush=True)
    ended = time.perf_counter()
    if first is not None and len(said) > 1:
        each = 1000 * (ended - first) / (len(said) - 1)
        print(f"\n[first piece after {1000 * (first - began):.0f} ms, then one every {each:.1f} ms]", file=sys.stderr)
    return "".join(said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--once", metavar="TEXT", help="ask this, print the answer and end")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    parser.add_argument("--tokens", type=int, default=256, help="of an answer, at most (default 256)")
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    given = parser.parse_args()
    try:
        decoder, tokenizer = open_folder(given.folder, threads=given.threads)
        check_chat(tokenizer)
        stop = stop_tokens(given.folder, tokenizer)
        messages = [{"role": "system", "content": given.system}] if given.system else []
        while True:
            asked = given.once or input("> ").strip()
            if not asked:
                return 0
            messages.append({"role": "user", "content": asked})
            said = say(answer(decoder, tokenizer, messages, tokens=given.tokens, stop=stop))
            messages.append({"role": "assistant", "content": said})
            if given.once:
                print()
                return 0
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (EOFError, KeyboardInterrupt):
        print()
        return 0


if __name__ == "__main__":
    sys.exit(main())
