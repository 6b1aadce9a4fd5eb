"""What is known of each public data set: where it comes from, under which licence, and the hashes of its files.

A hash is written here only if it was published for the official file, so that a download can be refused before
anything reads it. Where none was published, `hash` is None and the one seen at the first download is kept (`fetch`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from fusionlearn.errors import DatasetError

_UCI = "https://archive.ics.uci.edu/static/public"


@dataclass(frozen=True)
class File:
    """One file that is kept in the data set's folder."""

    name: str  # in the folder
    max_bytes: int  # larger is refused: a guard against archives that unpack without end
    hash: str | None = None  # "sha256:…" or "md5:…", as published; None: trusted when first seen, compared ever after
    member: str = ""  # its path inside the archive; default `name`


@dataclass(frozen=True)
class Source:
    """One download from the official place: the file itself, or an archive of which only `files` are unpacked."""

    url: str
    files: tuple[File, ...]
    archive: Literal["", "zip", "tar"] = ""
    hash: str | None = None  # of the archive, where nobody published one for its members


@dataclass(frozen=True)
class Dataset:
    """One data set. Without `sources` it cannot be downloaded from here: it must be put in $FUSIONLEARN_DATA."""

    name: str  # also the name of its folder
    domain: str
    records: str  # how many, for people
    partition: str  # how it falls into clients by nature
    licence: str
    page: str  # where a person reads about it and gets it
    citation: str
    sources: tuple[Source, ...] = ()

    @property
    def files(self) -> tuple[File, ...]:
        """Every file a download leaves in the folder."""
        return tuple(file for source in self.sources for file in source.files)


_RECORDS = (
    Dataset(
        name="heart_disease",
        domain="healthcare",
        records="920 patients, 13 features",
        partition="4 hospitals, one file each",
        licence="CC BY 4.0",
        page="https://archive.ics.uci.edu/dataset/45/heart+disease",
        citation="Janosi, Steinbrunn, Pfisterer, Detrano (1988), Heart Disease, UCI ML Repository, 10.24432/C52P4X; "
        "Detrano et al., American Journal of Cardiology 64 (1989)",
        sources=(
            Source(
                url=f"{_UCI}/45/heart+disease.zip",
                archive="zip",
                files=(
                    File(
                        "processed.cleveland.data",
                        18_461,
                        "sha256:a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
                    ),
                    File(
                        "processed.hungarian.data",
                        10_263,
                        "sha256:d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
                    ),
                    File(
                        "processed.switzerland.data",
                        4_109,
                        "sha256:834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
                    ),
                    File(
                        "processed.va.data",
                        6_737,
                        "sha256:e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
                    ),
                ),
            ),
        ),
    ),
    Dataset(
        name="pneumoniamnist",
        domain="healthcare",
        records="5,856 chest X-rays, 28 x 28",
        partition="none",
        licence="CC BY 4.0",
        page="https://medmnist.com",
        citation="Yang et al., MedMNIST v2, Scientific Data 10:41 (2023); Kermany et al., Cell 172 (2018)",
        sources=(
            Source(
                url="https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1",
                files=(File("pneumoniamnist.npz", 8_000_000, "md5:28209eda62fecd6e6a2d98b1501bb15f"),),
            ),
        ),
    ),
    Dataset(
        name="tcga_brca",
        domain="healthcare",
        records="1,088 patients, 39 features",
        partition="6 regions",
        licence="GDC open-access clinical data; no attempt to identify participants",
        page="https://github.com/owkin/FLamby/tree/main/flamby/datasets/fed_tcga_brca",
        citation="Liu et al., Cell 173 (2018); du Terrail et al., FLamby, NeurIPS Datasets and Benchmarks (2022)",
    ),
    Dataset(
        name="vehicle_claim_fraud",
        domain="finance",
        records="15,420 claims, 33 columns",
        partition="car make, policy type, year, or 16 claim agents",
        licence="CC0 (as its page is remembered, not checked)",
        page="https://www.kaggle.com/datasets/shivamb/vehicle-claim-fraud-detection",
        citation="Phua, Alahakoon, Lee, SIGKDD Explorations 6 (2004)",
    ),
    Dataset(
        name="credit_card_fraud",
        domain="finance",
        records="9,999 payments of the 284,807, 30 columns",
        partition="none",
        licence="DbCL 1.0 (as its page is remembered, not checked)",
        page="https://www.kaggle.com/datasets/mlg-ulb/creditcardfraud",
        citation="Dal Pozzolo, Caelen, Johnson, Bontempi, CIDM (2015)",
    ),
    Dataset(
        name="credit_default_taiwan",
        domain="finance",
        records="30,000 card holders, 23 features",
        partition="education, marriage, or age band",
        licence="CC BY 4.0",
        page="https://archive.ics.uci.edu/dataset/350/default+of+credit+card+clients",
        citation="Yeh and Lien, Expert Systems with Applications 36 (2009); UCI ML Repository, 10.24432/C55S3H",
        sources=(
            Source(
                url=f"{_UCI}/350/default+of+credit+card+clients.zip",
                archive="zip",
                files=(
                    File(
                        "default of credit card clients.xls",
                        5_539_328,
                        "sha256:30c6be3abd8dcfd3e6096c828bad8c2f011238620f5369220bd60cfc82700933",
                    ),
                ),
            ),
        ),
    ),
    Dataset(
        name="smart_home_adl",
        domain="IoT",
        records="1,108 activities, 47,738 sensor events",
        partition="5 homes with different sensors",
        licence="none stated; put online for research, do not pass copies on",
        page="https://sites.google.com/site/tim0306/datasets",
        citation="van Kasteren, Noulas, Englebienne, Kröse, UbiComp (2008); Tapia, Intille, Larson, Pervasive (2004)",
    ),
    Dataset(
        name="wisdm_har",
        domain="IoT",
        records="5,418 windows of 10 s, 43 features",
        partition="36 users",
        licence="free with citation; readme.txt stays with the data",
        page="https://www.cis.fordham.edu/wisdm/dataset.php",
        citation="Kwapisz, Weiss, Moore, SensorKDD (2010)",
        sources=(
            Source(
                url="https://www.cis.fordham.edu/wisdm/includes/datasets/latest/WISDM_ar_latest.tar.gz",
                archive="tar",
                files=(  # no published hash is known of these two
                    File(
                        "WISDM_ar_v1.1_transformed.arff",
                        4_000_000,
                        member="WISDM_ar_v1.1/WISDM_ar_v1.1_transformed.arff",
                    ),
                    File("readme.txt", 100_000, member="WISDM_ar_v1.1/readme.txt"),
                ),
            ),
        ),
    ),
    Dataset(
        name="occupancy",
        domain="IoT",
        records="20,560 minutes, 5 sensors",
        partition="3 recording periods, one file each",
        licence="CC BY 4.0",
        page="https://archive.ics.uci.edu/dataset/357/occupancy+detection",
        citation="Candanedo and Feldheim, Energy and Buildings 112 (2016); UCI ML Repository, 10.24432/C5X01N",
        sources=(
            Source(
                url=f"{_UCI}/357/occupancy+detection.zip",
                archive="zip",
                files=(
                    File(
                        "datatraining.txt",
                        596_674,
                        "sha256:b2c4d0ce2b9e4e453c476f7125ef31aeec2d1f5c7f5572d0e80de3df6521ab56",
                    ),
                    File(
                        "datatest.txt",
                        200_766,
                        "sha256:1b92c7c1b2838963464fa891a610cf3c5db4becb7189189b29b330107a584c7f",
                    ),
                    File(
                        "datatest2.txt",
                        699_664,
                        "sha256:d026d1bd5aeccd4aff4f3b3710d48e40613bd5fc370db7e61bbdcaa50d985095",
                    ),
                ),
            ),
        ),
    ),
    Dataset(
        name="room_occupancy",
        domain="IoT",
        records="10,129 half minutes, 16 sensors",
        partition="7 days; vertically, 7 sensor nodes",
        licence="CC BY 4.0",
        page="https://archive.ics.uci.edu/dataset/864/room+occupancy+estimation",
        citation="Singh, Jain, Chaudhari, Kraemer, Werner, Garg, GLOBECOM Workshops (2018)",
        sources=(
            Source(
                url=f"{_UCI}/864/room+occupancy+estimation.zip",
                archive="zip",
                hash="sha256:a0db79ee96ea297c22458ac77a28fba20d41246e75d24b2655ca3ab624cc08fd",
                files=(File("Occupancy_Estimation.csv", 2_000_000),),
            ),
        ),
    ),
    Dataset(
        name="cifar10",
        domain="vision",
        records="60,000 images, 32 x 32 RGB",
        partition="none",
        licence="none stated; research with citation",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="Krizhevsky, Learning multiple layers of features from tiny images (2009)",
    ),
    Dataset(
        name="mnist",
        domain="vision",
        records="70,000 digits, 28 x 28",
        partition="none; with usps a shift of domain",
        licence="CC BY-SA 3.0 (as it is commonly given)",
        page="https://github.com/pytorch/vision/blob/main/torchvision/datasets/mnist.py",
        citation="LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 86 (1998)",
        sources=tuple(  # the authors' own server turns programs away; this is the copy that PyTorch serves
            Source(
                url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}",
                files=(File(name, max_bytes, f"sha256:{digest}"),),
            )
            for name, max_bytes, digest in (
                (
                    "train-images-idx3-ubyte.gz",
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                (
                    "train-labels-idx1-ubyte.gz",
                    28_881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                (
                    "t10k-labels-idx1-ubyte.gz",
                    4_542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            )
        ),
    ),
    Dataset(
        name="usps",
        domain="vision",
        records="9,298 digits, 16 x 16",
        partition="none; with mnist a shift of domain",
        licence="none stated; widely used for research",
        page="https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps",
        citation="Hull, IEEE Transactions on Pattern Analysis and Machine Intelligence 16 (1994)",
        sources=tuple(
            Source(
                url=f"https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/{name}",
                files=(File(name, 20_000_000, f"md5:{digest}"),),
            )
            for name, digest in (
                ("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
                ("usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118"),
            )
        ),
    ),
    Dataset(
        name="office_caltech10",
        domain="vision",
        records="2,533 photographs, 10 objects",
        partition="4 domains, one file each",
        licence="none stated; research with citation",
        page="https://github.com/redhat12345/OfficeCaltechDomainAdaptation",
        citation="Gong, Shi, Sha, Grauman, CVPR (2012); Saenko et al., ECCV (2010)",
    ),
    Dataset(
        name="amazon_reviews_4domain",
        domain="text, sentiment",
        records="8,000 product reviews",
        partition="4 departments",
        licence="none stated; research with citation",
        page="https://www.cs.jhu.edu/~mdredze/datasets/sentiment/",
        citation="Blitzer, Dredze, Pereira, ACL (2007)",
    ),
    Dataset(
        name="sentiment_sentences_3domain",
        domain="text, sentiment",
        records="3,000 sentences",
        partition="3 sites, one file each",
        licence="CC BY 4.0",
        page="https://archive.ics.uci.edu/dataset/331/sentiment+labelled+sentences",
        citation="Kotzias, Denil, de Freitas, Smyth, KDD (2015)",
    ),
    Dataset(
        name="airline_tweets",
        domain="text, sentiment",
        records="14,640 tweets",
        partition="6 airlines",
        licence="CC BY-NC-SA 4.0 (as it is remembered, not checked): non-commercial",
        page="https://www.kaggle.com/datasets/crowdflower/twitter-airline-sentiment",
        citation="CrowdFlower, Twitter US Airline Sentiment (2015)",
    ),
    Dataset(
        name="multi30k",
        domain="text, translation",
        records="29,000 captions in 4 languages",
        partition="language pair",
        licence="none stated; built on Flickr30k: non-commercial research",
        page="https://github.com/multi30k/dataset",
        citation="Elliott, Frank, Sima'an, Specia, VL (2016); Barrault et al., WMT (2018)",
    ),
    Dataset(
        name="tatoeba_en_de",
        domain="text, translation",
        records="50,002 sentence pairs",
        partition="none; with multi30k a shift of domain",
        licence="CC BY 2.0 FR",
        page="https://www.manythings.org/anki/",
        citation="The Tatoeba project, tatoeba.org",
    ),
)

DATASETS: dict[str, Dataset] = {record.name: record for record in _RECORDS}


def names() -> tuple[str, ...]:
    """The data sets that `find` knows."""
    return tuple(DATASETS)


def record(name: str) -> Dataset:
    """Everything known of one data set. Errors: DatasetError for a name that is not in `names()`."""
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name, DATASETS, n=1)
    meant = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(DATASETS)}."
    raise DatasetError(f"there is no data set '{name}': {meant}")
