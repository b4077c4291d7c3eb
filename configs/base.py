"""Every knob once, with its unit and the reason for its value.

A task config (quickstart.py, gsm8k.py, math.py) starts from here and changes what differs; a method
is a row of methods.py laid over it. Arguments follow the file's name:

  --config=configs/quickstart.py:method=aper,steps=50

and any single key can be set on its own: `--config.optimizer.learning_rate=3e-6`.
"""

from ml_collections import ConfigDict

from configs import methods
from grpo_jax.errors import UserError


def get_config() -> ConfigDict:
  """The defaults: plain GRPO at the constants of arXiv 2606.04560, table 7, where it names them."""
  config = ConfigDict()
  config.method = "grpo"  # rows of methods.py, joined by "+"; read for the record and the title
  config.seed = 0
  config.steps = 200  # rounds of sampling and learning

  # From which weights? A Hugging Face folder, or a shape to train from scratch.
  config.model = ConfigDict()
  config.model.folder = ""  # holds config.json, *.safetensors and a tokenizer
  config.model.shape = ConfigDict()  # fields of Qwen3Config; read where folder is ""
  config.model.dtype = "float32"  # of activations; "bfloat16" on GPU and TPU. Parameters: float32
  # What the backward pass computes again: "none"; "elementwise", all but products and attention:
  # half the memory, about the same time; "block", all but each block's input: still less memory, a
  # third more work; "offload", that with the inputs in the host's memory.
  config.model.remat = "none"
  # LoRA: only low-rank adapters are trained; the model's own parameters are held in model.dtype.
  config.model.lora_rank = 0  # 0: off, all parameters are trained
  config.model.lora_alpha = 32.0  # what adapters add is multiplied by alpha / rank
  config.model.lora_targets = ("query", "key", "value", "out", "gate", "up", "down")
  config.model.attention = "auto"  # "xla", or a kernel of model/attention.py for these devices
  config.tokenizer = ""  # a folder; "": the model's own; built in: "characters" (of sums), "ascii"

  # How devices share the work; the product must be their number, -1 is what is left.
  config.mesh = ConfigDict()
  config.mesh.data = 1  # parameters copied
  config.mesh.fsdp = -1  # parameters split: the least memory, so the default
  config.mesh.tensor = 1  # heads and columns split: within one host

  # Problems to learn from.
  config.data = ConfigDict()
  # gsm8k, math, minerva, olympiadbench, jsonl, code, text, arithmetic, arithmetic_programs
  config.data.source = "gsm8k"
  config.data.path = ""  # a file, or a folder as published
  config.data.split = "train"
  config.data.ask = "answers"  # or "steps": the next one of a worked solution
  config.data.limit = 0  # problems; 0: all
  config.data.levels = ()  # of the made-up ones: digits; named twice, twice as many
  config.data.template = "chatml_boxed"
  config.data.max_prompt_tokens = 1024  # longer prompts are dropped and counted

  # More problems to learn from, of another kind; "": none.
  config.more = ConfigDict()
  config.more.source = ""
  config.more.path = ""
  config.more.split = "train"
  config.more.ask = "answers"
  config.more.limit = 0
  config.more.levels = ()
  config.more.template = ""  # "": that of data

  # From when on are they asked?
  config.stages = ConfigDict()
  config.stages.switch = "none"  # from the start; after a step, a share of all steps, at a plateau
  config.stages.step = 100  # step: the last one without them
  config.stages.share = 0.5  # share: of config.steps without them
  config.stages.metric = "eval/accuracy"  # plateau: of what; reward/mean, reward/right
  config.stages.window = 3  # plateau: the mean of as many values
  config.stages.gain = 0.01  # plateau: is less than this above that of as many before

  # Problems held out.
  config.eval = ConfigDict()
  config.eval.source = "gsm8k"
  config.eval.path = ""
  config.eval.split = "test"
  config.eval.ask = "answers"
  config.eval.limit = 0
  config.eval.levels = ()
  config.eval.template = ""  # "": that of data
  config.eval.every = 20  # steps; always also before the first and after the last
  config.eval.samples = 1  # answers a problem
  config.eval.temperature = 0.6  # with top_p 0.8: the paper's evaluation
  config.eval.top_p = 0.8
  config.eval.top_k = 0

  # More problems held out, of another kind, told as eval_more/...; "": none.
  config.eval_more = ConfigDict()
  config.eval_more.source = ""
  config.eval_more.path = ""
  config.eval_more.split = "test"
  config.eval_more.ask = "answers"
  config.eval_more.limit = 0
  config.eval_more.levels = ()
  config.eval_more.template = ""

  # Rollouts of a step.
  config.rollout = ConfigDict()
  config.rollout.problems = 32
  config.rollout.samples = 8  # G, rollouts a problem
  config.rollout.rounds = 1  # most rounds of these in a step, while too few rollouts are kept
  config.rollout.slots = 32  # rollouts decoded together: the KV cache grows with it
  config.rollout.burst = 16  # tokens between two refills of slots whose rollouts have ended
  config.rollout.gather_weights = True  # whole along fsdp while decoding; False: they do not fit
  config.rollout.max_new_tokens = 8192
  config.rollout.temperature = 1.0
  config.rollout.top_p = 1.0
  config.rollout.top_k = 0

  # Which problems next, and how many rollouts each? problems x samples in all, whatever is chosen.
  # without_solved, easy_to_hard, most_uncertain, perplexity_window
  config.select = "shuffled_epochs"
  config.allocate = "as_selected"  # the same of each, unless the selection has sizes; by_capability
  config.evidence = ConfigDict()
  config.evidence.window = 1  # visits of a problem that make up its recent success rate
  config.without_solved = ConfigDict()  # leaves out what was always right in the epoch before
  config.without_solved.return_every = 0  # epochs after which all return; 0: when too few are left
  config.easy_to_hard = ConfigDict()  # in phases, with groups of 2, 4 and 8
  config.easy_to_hard.profile = ""  # success rates: a file that profile_prompts.py makes
  config.easy_to_hard.solved_above = 0.75  # success rates above it are left out
  config.easy_to_hard.unsolved_share = 0.1  # part of the never solved ones, in every phase
  config.most_uncertain = ConfigDict()  # one problem a step, with all its rollouts
  config.most_uncertain.candidates = 128  # problems it is the best of
  config.most_uncertain.exploration = 0.5  # what it is worth not to have been asked before
  config.most_uncertain.warmup_steps = 20  # taken at random
  config.perplexity_window = ConfigDict()  # from prompts of low perplexity to those of high
  config.perplexity_window.share = 0.2  # problems of a step / candidates whose prompts are measured
  config.by_capability = ConfigDict()  # more rollouts where one more is worth most
  config.by_capability.concentration = 11.0  # of the density over difficulties: kappa
  config.by_capability.least = 2  # rollouts of a problem
  config.by_capability.most = 128
  config.by_capability.steps = 10  # over which failures are averaged; the paper does not say

  # What an answer is worth, and which groups are learned from.
  config.reward = ConfigDict()
  config.reward.right = 1.0
  config.reward.wrong = -1.0
  config.reward.format = 0.0  # taken off where no answer stands in the form its judge reads
  config.reward.language_mix = 0.0  # taken off where a completion mixes scripts (verify/scripts.py)
  # Who judges the next piece of a text: module:name; verify/segments.py says how to write another.
  config.reward.segment_judge = "grpo_jax.verify.segments:same_words"
  config.reward.overlong = 0.0  # last share of max_new_tokens, over which 0 to 1 is taken off
  config.reward.kl = "k1"  # estimator of the KL to the start policy that is taken off; k1, k2, k3
  config.reward.kl_coef = 0.0  # 0: none; above 0 keeps a second copy of the weights
  config.keep = "everything"  # or "mixed_groups": drop groups all right or all wrong
  config.weigh = "equal"  # of those, in the loss; "relative_entropy": the less certain more
  config.keep_spread = 0.0  # mixed_groups: those whose rewards have a smaller deviation go too
  config.keep_truncated = True  # False: rollouts cut at max_new_tokens have no part in the loss

  # What a rollout is worth beside its group: (reward - baseline) / scale.
  config.advantage = ConfigDict()
  config.advantage.baseline = "mean"  # of the group; leave_one_out, none
  config.advantage.scale = "group_std"  # batch_std, beta, none
  config.advantage.zero_truncated = False  # True: 0 for rollouts cut at max_new_tokens

  config.verifier = ConfigDict()
  config.verifier.workers = 2  # processes
  config.verifier.deadline_seconds = 5.0  # a check that takes longer is killed: unscored
  # Each run of a program that a model wrote; verify/programs.py says what keeps it in its place.
  config.verifier.program_seconds = 5  # of CPU; and three times as many in all
  config.verifier.program_memory_mb = 512
  config.verifier.unisolated_programs = False  # True: run them where there is no isolation, too

  # A second grader, independent of the first, is asked about some rewards of each step.
  config.audit = ConfigDict()
  config.audit.rollouts = 8  # of a step; 0: none
  config.audit.alarm = 0.1  # share of paid rewards, over some steps, that the second one refuses

  # Old rollouts in the batch; ratio 0: no replay and no store.
  config.replay = ConfigDict()
  config.replay.ratio = 0.0  # replayed rollouts for each surviving fresh one
  config.replay.alpha = 0.5  # P(i) ~ priority^alpha
  # Of a rollout's advantage its size; "normalised_advantage": as a share of the most it can be in a
  # group as large; group_spread; likelihood, of a token at birth; uniform.
  config.replay.priority = "advantage"
  # As set at "birth"; "refreshed", anew when its problem is asked; "drawn", in a group of its own:
  # what is drawn of its problem.
  config.replay.advantage = "birth"
  config.replay.store = "everything"  # that learned; or "right": answers the verifier called right
  config.replay.problems = "any"  # or "asked": only answers to this step's problems are drawn
  config.replay.most = 0  # rollouts of one problem in a draw, its best by priority; 0: no limit
  config.replay.level = "rollout"  # or "query": whole groups, as many as fit
  # All fresh rollouts learn, and old ones with them; "pool": both are drawn, as many in all.
  config.replay.composition = "fresh_anchored"
  config.replay.decay = 0.0  # steps after which a priority has fallen to 1/e; 0: it does not fall
  config.replay.max_age = 10  # steps
  config.replay.warmup_steps = 20  # the store fills, nothing is drawn
  config.replay.capacity = 30_000  # rollouts; age is the limit that binds

  config.loss = ConfigDict()
  config.loss.ratio = "token"  # or "sequence": one ratio for a row, the geometric mean
  config.loss.clip = "ppo"  # cispo, minirl, none; shaped_replayed: r / (r + 0.1) on replayed rows
  config.loss.clip_low = 0.2
  config.loss.clip_high = 0.28
  config.loss.dual_clip = 10.0  # ppo: bounds the loss of negative advantages; 0: off
  config.loss.weight_cap = 5.0  # minirl: largest importance weight
  config.loss.aggregate = "token_mean"  # sequence_mean, constant
  config.loss.anchor = "behaviour"  # ratios are to the log-probs of sampling; or "recomputed", or
  # "recomputed_replayed": fresh rows as the first, replayed ones as the second
  config.loss.correction = "none"  # truncate, mask: the loss times anchor / behaviour, bounded
  config.loss.correction_low = 0.5  # mask: tokens of smaller weight are left out
  config.loss.correction_high = 2.0  # truncate: largest weight; mask: tokens above are left out
  config.loss.kl = "k3"  # or k2: estimator of the KL to the start policy
  config.loss.kl_coef = 0.0  # 0: none; above 0 keeps a second copy of the weights
  config.loss.entropy = "uniform"  # or "advantage": tokens of good rollouts up, of bad ones down
  config.loss.entropy_coef = 0.0  # nats; 0: no bonus

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-6
  config.optimizer.warmup_steps = 0
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.999
  config.optimizer.weight_decay = 0.01
  config.optimizer.max_grad_norm = 1.0
  config.optimizer.momentum_dtype = "float32"  # "bfloat16": two bytes a parameter less
  config.optimizer.microbatch_tokens = 16_384  # of one forward and backward pass on each device
  config.optimizer.epochs = 1  # times a step learns from each of its rollouts
  config.optimizer.minibatches = 1  # optimizer steps an epoch deals its rollouts to

  # Supervised steps on worked solutions before the first rollout; KL is to the policy after them.
  config.warm_start = ConfigDict()
  # A file of {"prompt", "solution"}, asked in data.template; "": the training problems' solutions.
  config.warm_start.demonstrations = ""
  config.warm_start.steps = 0  # on demonstrations drawn by chance
  config.warm_start.epochs = 0.0  # instead: passes over all demonstrations
  config.warm_start.rows = 64  # demonstrations a step
  config.warm_start.parts = 1  # forward and backward passes that share them: more, less memory
  config.warm_start.learning_rate = 1e-3  # for random weights; 1e-5 for those of a folder
  config.warm_start.mistakes = 0.0  # share of wrong steps in arithmetic demonstrations

  config.checkpoint = ConfigDict()
  config.checkpoint.every = 20  # steps; always also after the last
  config.checkpoint.keep = 2  # the newest
  config.checkpoint.keep_best = 0  # and as many of the highest accuracy on held-out problems
  config.checkpoint.keep_every = 0  # and those of steps that this divides; 0: none
  # From SIGTERM or Ctrl-C to the end. A preempted VM is given 30 s, a job in Kubernetes or SLURM as
  # much or more: what takes longer is cut off there, and the last checkpoint stands.
  config.checkpoint.deadline_seconds = 120.0

  config.log = ConfigDict()
  config.log.rollouts_every = 10  # steps between readable rollout files
  config.log.groups = 4  # groups shown in one
  config.log.tensorboard = True
  # Mean |log-prob of the sampler - log-prob of the trainer| on fresh tokens, nats: rounding in
  # bfloat16 stays near 0.01; wrong settings on one side start at 0.1.
  config.log.mismatch_alarm = 0.05
  config.log.stuck_steps = 10  # in a row that teach nothing, after which it is said aloud
  # Without the end of a step, compilation and evaluation included: the stacks of all threads are
  # written and the run ends with an error. 0: no limit.
  config.log.stall_seconds = 3600.0
  config.log.max_bad_steps = 5  # in a row without a finite gradient: the run stops

  config.grpo = methods.as_grpo(config)  # what rows change, as it is without them: for the record
  return config


def begin(arg: str | None, *, few: int = 3, **defaults) -> tuple[ConfigDict, dict]:
  """What every task config starts with: the defaults above under a method's row.

  Args:
    arg: what stands after the config file's name on the command line.
    few: steps of a run that is `shrunk` and does not say how many.
    defaults: the arguments this task takes beside method, steps and seed, or other defaults.

  Returns:
    The config, and all arguments by name.
  """
  defaults = {"method": "aper", "steps": 200, "seed": 0} | defaults
  given = parse_arguments(arg, **defaults)
  if given.get("shrunk"):
    given = parse_arguments(arg, **(defaults | {"steps": few}))
  config = get_config()
  methods.apply(config, given["method"])
  config.steps, config.seed = given["steps"], given["seed"]
  return config, given


def shrink(config: ConfigDict) -> ConfigDict:
  """The same path in a minute on a CPU: true steps, real problems and vocabulary, tiny sizes.

  `config.tokenizer` has to name a Qwen3 tokenizer's folder, since there is no model folder.
  """
  config.model.shape = {
    "vocab_size": 151936,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "rope_theta": 1e6,
  }
  config.model.dtype = "float32"  # what a CPU is good at
  config.data.max_prompt_tokens = 192
  config.data.limit = 64
  config.eval.limit = 8
  config.eval.every = 3
  config.rollout.problems, config.rollout.samples, config.rollout.slots = 4, 4, 8
  config.rollout.max_new_tokens = 32
  config.replay.capacity = 64
  config.replay.warmup_steps = 1
  config.optimizer.microbatch_tokens = 1024
  config.checkpoint.every = 2
  config.log.rollouts_every = 1
  return config


def parse_arguments(text: str | None, **defaults) -> dict:
  """Reads "name=value,name=value" after a config file's name; values take their default's type.

  Raises:
    UserError: a name the config does not take, or a value of another type.
  """
  values = dict(defaults)
  for part in filter(None, (text or "").split(",")):
    name, _, value = part.partition("=")
    if name not in defaults:
      raise UserError(f"config argument {name!r}: {methods.nearest(name, defaults)}")
    values[name] = _converted(name, value, defaults[name])
  return values


def _converted(name: str, value: str, default):
  if isinstance(default, bool):
    if value.lower() not in ("", "true", "false"):
      raise UserError(f"config argument {name}={value!r}: expected true or false")
    return value.lower() != "false"
  try:
    return type(default)(value)
  except ValueError:
    expected = type(default).__name__
    raise UserError(f"config argument {name}={value!r}: expected {expected}") from None
