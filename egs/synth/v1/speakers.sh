#!/usr/bin/env bash
# Sourced by compare_speakers.sh and compare_maps.sh: sets with different numbers of speakers, and runs of equal length on them.
# Uses $sizes, $data, $jobs and $train_cmd; sets $largest.
# shellcheck disable=SC2154

make_speakers() { # $data/train of the largest number of speakers, and $data/test
  largest=$(tr ' ' '\n' <<< "$sizes" | sort -n | tail -n 1)
  mkdir -p "$data"
  if [ "$(cat "$data/.largest" 2> /dev/null)" != "$largest" ]; then   # $data/train may be of another number of speakers
    rm -f "$data/.largest"
    ./prepare_data.py --num-train-speakers "$largest" --nj "$jobs" "$data"
    for x in train test; do
      local/make_fbank.sh --nj "$jobs" --cmd "$train_cmd" "$data/$x"
      utils/fix_data_dir.sh "$data/$x"
    done
    echo "$largest" > "$data/.largest"
  fi
}

make_subset() { # $data/train_<number> of the first speakers
  if [ "$1" -eq "$largest" ]; then utils/copy_data_dir.sh "$data/train" "$data/train_$1"
  else
    awk -v most="$1" 'NR <= most {print $1}' "$data/train/spk2utt" > "$data/spk_$1"
    utils/subset_data_dir.sh --spk-list "$data/spk_$1" "$data/train" "$data/train_$1"
  fi
}

# head.conf and train.conf for the same total number of utterances.
settings() { # folder, speakers, utterances in all
  local count
  count=$(wc -l < "$data/train_$2/utt2spk")
  mkdir -p "$1"
  awk -v all="$3" -v count="$count" -v folder="$1" 'BEGIN {
    epochs = int(all / count + 0.5)
    if (epochs < 1) epochs = 1
    print "--type=aam\n--scale=32\n--margin=0.2\n--margin-start=0.15\n--margin-end=0.4" > (folder "/head.conf")
    print "--num-epochs=" epochs "\n--warmup=0.05\n--average=1" > (folder "/train.conf") }'
  grep -v -e '^--num-epochs' -e '^--warmup' -e '^--average' conf/train.conf >> "$1/train.conf"
}
