-- What a cell needs of a slot, and which of its samples came late.

-- Weights and the cache of at least one sequence of full length, over all GPUs of a gang, as planned;
-- 0: not known.
ALTER TABLE cell ADD COLUMN memory_need_bytes INTEGER NOT NULL DEFAULT 0;

-- A unit's first grant has epoch 1, and every later grant or requeue raises it: a sample under a later
-- epoch is a re-roll. Crashes hit long answers more often than short ones, so a cell with many of them
-- may be biased.
DROP VIEW v_cell;
CREATE VIEW v_cell AS
SELECT c.id AS cell_id, c.key AS cell_key,
       m.name AS model, m.content_hash AS model_hash,
       me.method AS method, me.bits AS bits, me.label AS method_label,
       me.group_size AS group_size, me.symmetric AS symmetric, me.pre_bias AS pre_bias,
       me.virtual_shards AS virtual_shards, me.calibration_set AS calibration_set,
       me.parameters_json AS parameters_json, a.key AS artifact_key,
       b.name AS benchmark, b.version_hash AS benchmark_hash, b.grader AS grader,
       c.temperature AS temperature, c.top_p AS top_p, c.top_k AS top_k,
       c.max_tokens AS max_tokens, c.max_model_len AS max_model_len,
       c.sampling_seed AS sampling_seed, c.tensor_parallel_size AS tensor_parallel_size,
       c.engine_numerics_version AS engine_numerics_version,
       coalesce(u.num_samples, 0) AS num_samples,
       coalesce(u.num_graded, 0) AS num_graded,
       coalesce(u.num_correct, 0) AS num_correct,
       CAST(u.num_correct AS REAL) / nullif(u.num_graded, 0) AS accuracy,
       coalesce(u.num_no_answer, 0) AS num_no_answer,
       coalesce(u.num_ungradable, 0) AS num_ungradable,
       coalesce(u.num_truncated, 0) AS num_truncated,
       coalesce(u.num_quarantined, 0) AS num_quarantined,
       coalesce(u.completion_tokens, 0) AS completion_tokens,
       CAST(u.completion_tokens AS REAL) / nullif(u.num_samples, 0) AS mean_completion_tokens,
       coalesce(u.num_rerolled, 0) AS num_rerolled,
       CAST(u.num_rerolled AS REAL) / nullif(u.num_samples, 0) AS rerolled_rate,
       c.memory_need_bytes AS memory_need_bytes
  FROM cell AS c
  JOIN model AS m ON m.id = c.model_id
  JOIN method AS me ON me.id = c.method_id
  JOIN benchmark AS b ON b.id = c.benchmark_id
  LEFT JOIN artifact AS a ON a.id = c.artifact_id
  LEFT JOIN (SELECT cell_id,
                    sum(state = 3) AS num_samples,
                    sum(verdict BETWEEN 1 AND 3) AS num_graded,
                    sum(verdict = 1) AS num_correct,
                    sum(verdict = 3) AS num_no_answer,
                    sum(verdict = 4) AS num_ungradable,
                    sum(finish_reason IN (2, 3)) AS num_truncated,
                    sum(state = 4) AS num_quarantined,
                    sum(completion_tokens) AS completion_tokens,
                    sum(state = 3 AND epoch > 1) AS num_rerolled
               FROM unit GROUP BY cell_id) AS u ON u.cell_id = c.id;
