"""Speech-in step: the command line: `python -m recipes.train_audio codebook|codes|encoder|features`."""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("codebook", "codes", "encoder", "features"))
    parser.add_argument("--minutes", type=float, default=30, help="training time in all; a stopped run goes on")
    parser.add_argument("--variants", type=int, default=2, help="augmented variants of each clip in codes and features")
    arguments = parser.parse_args()
    if arguments.command == "codebook":
        from recipes import train_audio_codebook

        train_audio_codebook.train(arguments.minutes)
    elif arguments.command == "encoder":
        from recipes import train_audio_encoder

        train_audio_encoder.train(arguments.minutes)
    else:
        from recipes import audio_exports

        write = audio_exports.write_codes if arguments.command == "codes" else audio_exports.write_features
        write(arguments.variants)


if __name__ == "__main__":
    main()
