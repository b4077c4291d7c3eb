#!/usr/bin/env bash
# Trains on a Cloud TPU slice and stays with the run to its end: creates or reuses the slice, sends
# this working tree to all of its VMs, installs it, starts the same command on each and prints the
# output of the first. After a preemption it does all of that again, and the run goes on from its
# last checkpoint.
#
#   What would be run, as commands; nothing is:
#     ./launch_tpu.sh --name=first --project=my-project --zone=us-west4-a --type=v5e-8 --dry-run \
#         -- --config=configs/quickstart.py
#   Four VMs that may be taken away at any time, and a bucket that keeps the run:
#     ./launch_tpu.sh --name=gsm8k --project=my-project --zone=us-west4-a --type=v5e-16 --spot \
#         --bucket=gs://my-bucket/runs --inputs=gs://my-bucket/inputs --delete-when-done \
#         -- --config=configs/gsm8k.py:method=aper --config.data.path=inputs/gsm8k \
#         --config.eval.path=inputs/gsm8k --config.model.folder=inputs/Qwen3-1.7B-Base
#   The end of the slice (it costs until it is deleted, also when this script is stopped):
#     ./launch_tpu.sh --name=gsm8k --project=my-project --zone=us-west4-a --delete
#
# What follows `--` goes to `python -m grpo_jax.train`; --workdir is added, and on more than one VM
# --distributed. Options:
#   --name=NAME         one name is one run: its slice, and its folder in the bucket
#   --project=ID        Google Cloud project
#   --zone=ZONE         where the TPU is, e.g. us-west4-a
#   --type=TYPE         v5e-8 (as Google says, v5litepod-8), v6e-8, v5p-8, v4-8, or any larger size;
#                       v5e, v6e: also 1 or 4
#   --version=IMAGE     runtime version of the VMs; default: Google's for the type
#   --spot              cheaper, can be preempted; needs --bucket, for the disks go with the VMs
#   --queued            wait in Google's queue (queued resource) where there is no capacity now
#   --bucket=gs://...   the run's folder is NAME in this one, which all VMs mount; more than one VM
#                       needs it, since all write one checkpoint
#   --inputs=gs://...   folder of models and problems, copied to inputs/ in the working tree
#   --delete-when-done  delete the slice when the command has ended; needs --bucket
#   --delete            delete the slice now, and run nothing
#   --dry-run           print the commands for a slice that does not exist yet, and run none
#   --timeout=300       seconds that a question to Google or to the VMs may take
#   --poll=30           seconds between looks at a slice that is not ready or does not answer
#
# Stopping this script stops nothing on the VMs; the same command attaches to the run again.
# Messages go to stderr, the output of the run to stdout. Exit code: that of the training command;
# 1 if something failed on the way to it; 2 if the options are wrong.

set -euo pipefail

SLOW=1800   # seconds for what takes long: creating, sending, installing
FOLLOW=1800 # seconds until the output is asked for anew: a connection that hangs costs no more
MISSES=5    # looks in a row without an answer after which we give up

say() { echo "launch_tpu: $*" >&2; }
fail() { echo "error: $*" >&2 && exit 1; }
refuse() { echo "error: $*" >&2 && exit 2; }

# ---------------------------------------------------------------------------------------- options

read_options() {
  NAME="" PROJECT="" ZONE="" TYPE="" VERSION="" BUCKET="" INPUTS=""
  SPOT="" QUEUED="" DELETE="" DELETE_WHEN_DONE="" DRY_RUN=""
  TIMEOUT=300 POLL=30
  local option variable
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    option=${1%%=*}
    variable=$(tr a-z- A-Z_ <<<"${option#--}")
    case $1 in
      --name=* | --project=* | --zone=* | --type=* | --version=* | --bucket=* | --inputs=* | \
        --timeout=* | --poll=*) printf -v "$variable" %s "${1#*=}" ;;
      --spot | --queued | --delete | --delete-when-done | --dry-run) printf -v "$variable" yes ;;
      *) refuse "unknown option $1; see --help, and put -- before the options of training" ;;
    esac
    shift
  done
  TRAIN=("$@") # with the -- in front
}

check_options() {
  [ -n "$PROJECT" ] || refuse "--project is missing; yours: gcloud config get-value project"
  [ -n "$ZONE" ] || refuse "--zone is missing; see https://cloud.google.com/tpu/docs/regions-zones"
  [[ $NAME =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] ||
    refuse "--name=$NAME: use small letters, digits and -, a letter first"
  local number tool
  for number in "$TIMEOUT" "$POLL"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] ||
      refuse "--timeout and --poll are whole seconds, not '$number'"
  done
  for tool in gcloud timeout git tar; do
    command -v "$tool" >/dev/null || refuse "$tool is missing; install it (gcloud:" \
      "https://cloud.google.com/sdk/docs/install; timeout is part of GNU coreutils)"
  done
  [ -n "$DELETE" ] || check_training_options
}

check_training_options() {
  local place
  for place in "$BUCKET" "$INPUTS"; do
    [[ -z $place || $place == gs://?* ]] || refuse "$place: write gs://BUCKET or gs://BUCKET/FOLDER"
  done
  [ ${#TRAIN[@]} -gt 1 ] || refuse "no training command; add -- --config=configs/quickstart.py"
  [[ " ${TRAIN[*]}" != *" --workdir"* ]] || refuse "--workdir is added here; --name names the run"
  read_type
  [ -n "$BUCKET" ] || [ "$WORKERS" = 1 ] ||
    refuse "$TYPE has $WORKERS VMs: --bucket=gs://... is needed, a folder that all of them see"
  [ -n "$BUCKET" ] || [ -z "$SPOT" ] ||
    refuse "--spot needs --bucket=gs://...: a preempted VM takes its disk along"
  [ -n "$BUCKET" ] || [ -z "$DELETE_WHEN_DONE" ] ||
    refuse "--delete-when-done needs --bucket=gs://...: the results would go with the VM"
  git -C "$ROOT" rev-parse --git-dir >/dev/null 2>&1 ||
    refuse "$ROOT is no git checkout; git is asked which files to send"
}

# Google's name of the slice, the image for it and the number of its VMs.
read_type() {
  local image size=${TYPE##*-}
  case $TYPE in
    v5e-* | v5litepod-*) TYPE=v5litepod-$size image=v2-alpha-tpuv5-lite ;;
    v6e-*) image=v2-alpha-tpuv6e ;;
    v5p-*) image=v2-alpha-tpuv5 ;;
    v4-*) image=tpu-ubuntu2204-base ;;
    *) size="" ;;
  esac
  [[ $size =~ ^[1-9][0-9]*$ ]] || refuse "--type=$TYPE: use v5e-8, v6e-8, v5p-8, v4-8 or a larger one"
  VERSION=${VERSION:-$image}
  # A VM has 4 chips, or all 8 of an 8-chip v5e or v6e; of v4 and v5p Google counts 2 cores a chip.
  case $TYPE in
    v5litepod-* | v6e-*) WORKERS=$((size > 8 ? size / 4 : 1)) ;;
    *) WORKERS=$((size > 8 ? size / 8 : 1)) ;;
  esac
}

# ----------------------------------------------------------------------------------- asking Google

# call SECONDS COMMAND...: runs a command with an end to its patience; its stdout is then in ANSWER.
# When it fails, ERROR says in one line what happened and what to do. A dry run prints it.
call() {
  local seconds=$1 code=0
  shift
  if [ -n "$DRY_RUN" ]; then
    printf '%q ' "$@" && echo && ANSWER=""
    return
  fi
  # In the background, because bash hears Ctrl-C while it waits, not while a command runs.
  timeout "$seconds" "$@" </dev/null >"$SCRATCH/stdout" 2>"$SCRATCH/stderr" &
  wait $! || code=$?
  ANSWER=$(<"$SCRATCH/stdout")
  [ $code = 0 ] || ERROR=$(explain "$code" "$seconds" "$(<"$SCRATCH/stderr")")
  return $code
}

explain() { # CODE SECONDS STDERR
  local where="$PROJECT, zone $ZONE"
  case $1:$3 in
    124:*) echo "no answer in $2 s; check network and firewall (ssh), then run this again" ;;
    *"no more capacity"* | *nsufficient*capacity*)
      echo "no capacity for $TYPE in $ZONE now; wait for it with --queued or try another --zone" ;;
    *[Qq]uota*) echo "the quota of $where for $TYPE is used up or 0; ask for more:" \
      "https://console.cloud.google.com/iam-admin/quotas?project=$PROJECT" ;;
    *SERVICE_DISABLED* | *"has not been used in project"*) echo "the TPU API is off; turn it on:" \
      "gcloud services enable tpu.googleapis.com --project=$PROJECT" ;;
    *"gcloud auth login"* | *UNAUTHENTICATED*) echo "not logged in; run: gcloud auth login" ;;
    *PERMISSION_DENIED* | *"does not have permission"*)
      echo "no permission in $where, or no such place; check both and ask for roles/tpu.admin" ;;
    *"(publickey"*) echo "the VM does not accept your ssh key; check OS Login and project keys" ;;
    *) echo "$(grep -v '^ *$' <<<"$3" | tail -n 1) (exit code $1)" ;;
  esac
}

tpus() { # SECONDS GROUP VERB ARGS...
  call "$1" gcloud compute tpus "${@:2}" "--project=$PROJECT" "--zone=$ZONE" --quiet
}

# The fields of what has our name; nothing if there is none.
describe() { # GROUP FORMAT
  tpus "$TIMEOUT" "$1" describe "$NAME" "--format=value($2)" && return
  grep -q NOT_FOUND "$SCRATCH/stderr" && ANSWER=""
}

# Sets VM to absent, waiting, ready, lost or failed, and VM_SAYS to Google's word for it.
look_at_vm() {
  VM_SAYS="" VM=waiting
  if [ -n "$QUEUED" ]; then
    describe queued-resources state.state || return
    VM_SAYS=$ANSWER
    case $VM_SAYS in
      ACTIVE) ;;
      "") VM=absent && return ;;
      SUSPENDING | SUSPENDED) VM=lost && return ;;
      FAILED) VM=failed && return ;;
      *) return 0 ;;
    esac
  fi
  describe tpu-vm "state,acceleratorType.basename(),networkEndpoints.len()" || return
  read -r VM_SAYS VM_TYPE VM_WORKERS <<<"$ANSWER" || true
  case $VM_SAYS in
    READY) VM=ready ;;
    CREATING | STARTING | RESTARTING | REPAIRING | DELETING) ;;
    "") if [ -n "$QUEUED" ]; then VM=lost; else VM=absent; fi ;;
    *) VM=lost ;;
  esac
}

create_vm() {
  local options=("--accelerator-type=$TYPE" ${SPOT:+--spot}
    --scopes=https://www.googleapis.com/auth/cloud-platform)
  say "creating $NAME ($TYPE in $ZONE)"
  if [ -n "$QUEUED" ]; then
    tpus "$TIMEOUT" queued-resources create "$NAME" "--node-id=$NAME" \
      "--runtime-version=$VERSION" "${options[@]}" --async
  else
    tpus "$SLOW" tpu-vm create "$NAME" "--version=$VERSION" "${options[@]}"
  fi
}

delete_vm() {
  if [ -n "$QUEUED" ]; then
    tpus "$SLOW" queued-resources delete "$NAME" --force # with its VM
  else
    tpus "$SLOW" tpu-vm delete "$NAME"
  fi || fail "cannot delete $NAME, which costs: $ERROR"
  say "deleted $NAME"
}

# Whatever has our name, however it was made.
delete_now() {
  describe queued-resources state.state || fail "$ERROR"
  QUEUED=${ANSWER:+yes}
  look_at_vm || fail "$ERROR"
  [ "$VM" != absent ] || fail "there is no $NAME in $ZONE of $PROJECT; look in other zones:" \
    "gcloud compute tpus tpu-vm list --project=$PROJECT --zone=-"
  delete_vm
}

# ------------------------------------------------------------------------------- asking the workers

# Sets SSH to what runs COMMAND on a worker. It must bear to be run twice: gcloud does that when
# the connection breaks.
ssh_to() { # WORKER COMMAND
  SSH=(gcloud compute tpus tpu-vm ssh "$NAME" "--project=$PROJECT" "--zone=$ZONE" --quiet
    --ssh-flag=-oConnectTimeout=20 --ssh-flag=-oServerAliveInterval=15
    "--worker=$1" "--command=$2")
}

on_all() { # SECONDS COMMAND
  ssh_to all "$2"
  call "$1" "${SSH[@]}"
}

# The words that call this script, as it was sent, on a worker.
worker() { # VERB ARGS...
  printf '%q ' bash "$FOLDER/tree/launch_tpu.sh" worker "$1" "$NAME" "${@:2}"
}

# Sets JOB to what all workers say of the command: new, running, busy, gone or `ended CODE`.
ask_for_job() {
  local answers
  on_all "$TIMEOUT" "if [ -d $FOLDER/tree ]; then $(worker status "${TRAIN[@]}");
    else echo job new; fi" || return
  JOB=$(sed -n 's/^job //p' <<<"$ANSWER")
  answers=$(grep -c . <<<"$JOB" || true)
  [ "$answers" = "$WORKERS" ] || [ -n "$DRY_RUN" ] && return
  ERROR="only $answers of $WORKERS workers answer; run this again, or --delete $NAME and start anew"
  return 1
}

send_tree() {
  say "sending the working tree"
  # Files that are tracked, or untracked and not ignored; less those deleted but not committed.
  # shellcheck disable=SC2016  # the inner bash expands these
  call "$SLOW" bash -c 'cd "$1" && git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d "" file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done |
    COPYFILE_DISABLE=1 tar --null -T - -czf "$2"' pack "$ROOT" "$ARCHIVE" &&
    tpus "$SLOW" tpu-vm scp "$ARCHIVE" "$NAME:launch_tpu-$NAME.tgz" --worker=all \
      --scp-flag=-oConnectTimeout=20 --scp-flag=-oServerAliveInterval=15 &&
    on_all "$TIMEOUT" "mkdir -p $FOLDER/job && cd $FOLDER && rm -rf tree && mkdir tree &&
      tar -xzf ~/launch_tpu-$NAME.tgz -C tree"
}

install_tree() {
  say "installing"
  on_all "$SLOW" "$(worker install "$BUCKET" "$INPUTS")" && return
  tail -n 20 "$SCRATCH/stderr" >&2
  return 1
}

start_job() {
  local why
  say "starting"
  ERROR="a worker has not"
  on_all "$TIMEOUT" "$(worker start "$WORKERS" "$BUCKET" "${TRAIN[@]}")" &&
    ask_for_job && [[ $JOB != *new* && $JOB != *gone* ]] && return
  why=$ERROR
  # Those that did would wait for the others, and cost.
  on_all "$TIMEOUT" "$(worker stop)" || true
  ERROR="not all $WORKERS workers started the command ($why); it was stopped: run this again"
  return 1
}

# Prints what worker 0 says until the command or the connection ends; which, others find out.
print_output() {
  touch "$SCRATCH/seen"
  ssh_to 0 "$(worker follow "$RANDOM$RANDOM" "$(wc -c <"$SCRATCH/seen")")"
  if [ -n "$DRY_RUN" ]; then
    call "$FOLLOW" "${SSH[@]}"
    return
  fi
  timeout "$FOLLOW" "${SSH[@]}" </dev/null 2>"$SCRATCH/stderr" | tee -a "$SCRATCH/seen" &
  wait $! || true
}

# --------------------------------------------------------------------------------- from end to end

see_through() {
  RECREATING=""
  until attempt; do
    [ -n "$SPOT" ] || fail "$NAME is lost ($VM_SAYS); --delete it, then run the same command again"
    say "$NAME was preempted ($VM_SAYS); going on from the bucket on a new slice"
    delete_vm
    RECREATING=yes
  done
  finish
}

# Succeeds when the command has ended, with JOB set; fails when the VM was lost.
attempt() {
  local error
  bring_up || return
  rm -f "$SCRATCH/seen"
  if ! set_up; then
    error=$ERROR
    is_lost && return 1
    fail "$NAME: $error"
  fi
  follow_job
}

# Waits for a VM that is ready; fails when there is one that was lost.
bring_up() {
  local before=""
  while true; do
    look_at_vm || fail "$ERROR"
    case $VM in
      ready) check_vm && return ;;
      lost) return 1 ;;
      failed) fail "the queued resource $NAME failed; why: gcloud compute tpus queued-resources" \
        "describe $NAME --project=$PROJECT --zone=$ZONE" ;;
      absent) create_or_wait && continue ;;
    esac
    [ "$VM_SAYS" = "$before" ] || say "$NAME is ${VM_SAYS:-absent}; waiting"
    before=$VM_SAYS
    sleep "$POLL"
  done
}

# After a preemption there is often no capacity for a while; at first the user should know.
create_or_wait() {
  create_vm && return
  [[ -n $RECREATING && $ERROR == "no capacity"* ]] || fail "cannot create $NAME: $ERROR"
  say "$ERROR; asking again"
  return 1
}

check_vm() {
  [ "$VM_TYPE" = "$TYPE" ] ||
    fail "$NAME is there as $VM_TYPE, not $TYPE; choose another --name, or --delete it"
  [ "$VM_WORKERS" -ge "$WORKERS" ] ||
    fail "only $VM_WORKERS of $WORKERS workers of $NAME started; --delete it and start again"
  WORKERS=$VM_WORKERS
}

set_up() {
  ask_for_job || return
  case $JOB in
    *busy*) fail "$NAME runs another command; wait for it, choose another --name, or --delete it" ;;
    *running*) say "the command is running on $NAME; attaching" ;;
    *) send_tree && install_tree && start_job ;;
  esac
}

# Whether the VM was taken away, which Google may take a while to notice.
is_lost() {
  local look
  for ((look = 1; look <= MISSES; look++)); do
    look_at_vm && [ "$VM" = lost ] && return
    [ -n "$SPOT" ] || return 1
    sleep "$POLL"
  done
  return 1
}

follow_job() {
  local misses
  for ((misses = 1; misses <= MISSES; misses++)); do
    print_output
    look_at_vm || VM=unknown
    case $VM in
      lost) return 1 ;;
      absent) fail "somebody deleted $NAME; the same command starts it again, from the bucket" ;;
      waiting) misses=0 ;;
      ready) if ask_for_job; then
        misses=0
        # While one worker runs the others are waited for: they find out by themselves, in a minute.
        case $JOB in
          *running*) ;;
          *new* | *gone*) is_lost && return 1
            print_errors
            fail "a worker of $NAME lost the command, as after a restart of its VM; the same" \
              "command goes on from the last checkpoint" ;;
          *) return 0 ;;
        esac
      fi ;;
    esac
    sleep "$POLL"
  done
  fail "$NAME does not answer: $ERROR; what runs there may go on, and costs: --delete ends it"
}

# The last lines of every worker but the first, whose output was printed as it came.
print_errors() {
  [ "$WORKERS" -gt 1 ] || return 0
  on_all "$TIMEOUT" "$(worker errors)" || return 0
  grep . <<<"$ANSWER" >&2 || true
}

finish() {
  local code
  code=$(sed -n 's/^ended //p' <<<"$JOB" | sort -n | tail -n 1)
  [ "$code" = 0 ] || print_errors
  [ "$code" = 0 ] || say "the command ended with exit code $code; the last lines say why"
  [ -z "$BUCKET" ] || say "the run's folder is ${BUCKET%/}/$NAME"
  if [ -n "$DELETE_WHEN_DONE" ]; then
    delete_vm
  else
    say "$NAME is kept, and costs until you --delete it; its files are in $FOLDER"
  fi
  exit "$code"
}

plan() {
  if [ -n "$DELETE" ]; then
    delete_vm
    return
  fi
  look_at_vm
  create_vm
  ask_for_job
  send_tree
  install_tree
  start_job
  print_output
  [ -z "$DELETE_WHEN_DONE" ] || delete_vm
}

interrupted() {
  # shellcheck disable=SC2046  # one word for each process
  kill $(jobs -p) 2>/dev/null || true
  say "stopped watching; what runs on $NAME goes on, and costs: the same command attaches again," \
    "--delete ends it"
  exit 130
}

launch() {
  ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  read_options "$@"
  check_options
  FOLDER=grpo_jax_runs/$NAME # on the VM
  ARCHIVE=${TMPDIR:-/tmp}/launch_tpu-$NAME.tgz
  SCRATCH=$(mktemp -d)
  trap 'rm -rf "$SCRATCH" "$ARCHIVE"' EXIT
  trap interrupted INT TERM
  if [ -n "$DRY_RUN" ]; then
    plan
  elif [ -n "$DELETE" ]; then
    delete_now
  else
    see_through
  fi
}

# ---------------------------------------------------------------------------------- on the workers
# There this script is called as `launch_tpu.sh worker VERB NAME ...` and works in a folder with
# tree/ the code, venv/, inputs/, bucket/ the mounted bucket or run/ the run's folder, and job/ how
# the command is doing.

on_worker() { # VERB NAME ARGS...
  cd "$HOME/grpo_jax_runs/$2"
  export PATH="$HOME/.local/bin:$PATH"
  "worker_$1" "${@:3}"
}

# With uv, because the images bring an older Python than the package needs.
worker_install() { # BUCKET INPUTS
  command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
  uv venv --quiet --allow-existing --python 3.12 venv
  (cd tree && uv pip install --quiet --python ../venv/bin/python -e '.[tpu]')
  [ -z "$1" ] || mount_bucket "$1"
  [ -n "$2" ] || return 0
  mkdir -p inputs
  gcloud storage rsync "$2" inputs --recursive --quiet --verbosity=error --no-user-output-enabled
  ln -sfn ../inputs tree/inputs
}

# Nothing is cached: what one worker writes, the others see at once.
mount_bucket() { # gs://BUCKET/FOLDER
  local name=${1#gs://}
  mkdir -p bucket
  command -v gcsfuse >/dev/null || install_gcsfuse
  mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=1000000 \
    --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "${name%%/*}" bucket
}

install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc packages=https://packages.cloud.google.com/apt
  curl -fsSL $packages/doc/apt-key.gpg | sudo tee $key >/dev/null
  echo "deb [signed-by=$key] $packages gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -qq -o DPkg::Lock::Timeout=300 update
  sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y gcsfuse >/dev/null
}

worker_start() { # WORKERS BUCKET -- TRAINING...
  local name=${PWD##*/} place=run several=() inside=${2#gs://}
  ! is_running || return 0
  [ -z "$2" ] || inside=${inside#"${inside%%/*}"} place=bucket${inside%/}/$name
  [ "$1" = 1 ] || several=(--distributed)
  rm -f job/ended
  printf '%q ' "${@:3}" >job/command
  setsid bash tree/launch_tpu.sh worker job "$name" "${several[@]}" "${@:4}" \
    "--workdir=$PWD/$place" </dev/null >job/log 2>&1 &
  echo $! >job/pid
  until is_running || [ -f job/ended ]; do sleep 0.1; done
}

# The lock goes when the last process of the job does, whatever ended it.
is_running() { [ -f job/lock ] && ! flock --nonblock job/lock true; }

worker_stop() { ! is_running || kill -- "-$(cat job/pid)"; }

# A platform that is named must be there; else JAX would train on the CPU if the TPU failed.
worker_job() { # TRAINING...
  local code=0
  exec 9>job/lock
  flock --wait 10 9 || return 0 # who asks whether it runs holds the lock for a moment
  (cd tree && exec env JAX_PLATFORMS=tpu,cpu PYTHONUNBUFFERED=1 \
    ../venv/bin/python -m grpo_jax.train "$@") || code=$?
  echo "$code" >job/ended.new
  mv job/ended.new job/ended
}

worker_status() { # -- TRAINING...
  if is_running; then
    [ "$(cat job/command)" = "$(printf '%q ' "$@")" ] && echo "job running" || echo "job busy"
  elif [ -f job/ended ]; then
    echo "job ended $(cat job/ended)"
  elif [ -f job/pid ]; then
    echo "job gone"
  else
    echo "job new"
  fi
}

# TICKET: the second run of one command would print again what was printed.
worker_follow() { # TICKET BYTES_SEEN
  [ "$(cat job/ticket 2>/dev/null)" != "$1" ] || return 0
  echo "$1" >job/ticket
  tail -c "+$(($2 + 1))" -s 0.2 -f --pid="$(cat job/pid)" job/log
}

# Of all but the first: the names of TPU VMs end in w-0, w-1, ...
worker_errors() {
  [[ $(hostname) == *-w-0 ]] || tail -n 20 job/log | sed "s/^/$(hostname): /"
}

case ${1:-} in
  "" | -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
  worker) on_worker "${@:2}" ;;
  *) launch "$@" ;;
esac
