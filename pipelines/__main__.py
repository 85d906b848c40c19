"""`python -m deeppose_tf.pipelines`, which is `deeppose`."""

from deeppose_tf.pipelines.cli import scripts

scripts.main()
