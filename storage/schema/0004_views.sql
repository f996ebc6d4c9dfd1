-- The public contract of the database: VIEWS.md tells each column. A view may gain columns, and
-- never loses or changes one. Views use nothing that plain sqlite3 does not have.
--
-- Aggregates come from `unit` alone; names of models and items are joined after them.

CREATE VIEW v_sweep_cell AS
SELECT s.public_id AS sweep_id, s.name AS sweep_name, s.owner AS owner,
       CASE s.state WHEN 1 THEN 'active' WHEN 2 THEN 'paused' WHEN 3 THEN 'cancelled'
                    WHEN 4 THEN 'done' ELSE 'failed' END AS sweep_state,
       s.created_time_us AS created_time_us, s.finished_time_us AS finished_time_us,
       sc.position AS position, sc.cell_id AS cell_id, sc.baseline_cell_id AS baseline_cell_id,
       sc.num_items AS num_items, sc.num_repeats AS num_repeats,
       sc.num_items * sc.num_repeats AS num_units
  FROM sweep AS s
  JOIN sweep_cell AS sc ON sc.sweep_id = s.id;

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
       CAST(u.completion_tokens AS REAL) / nullif(u.num_samples, 0) AS mean_completion_tokens
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
                    sum(completion_tokens) AS completion_tokens
               FROM unit GROUP BY cell_id) AS u ON u.cell_id = c.id;

CREATE VIEW v_sample AS
SELECT s.id AS sample_id, s.cell_id AS cell_id,
       m.name AS model, me.method AS method, me.bits AS bits, me.label AS method_label,
       b.name AS benchmark, s.item_index AS item_index, i.name AS item,
       i.level AS level, i.subject AS subject, s.repeat AS repeat, i.gold AS gold,
       CASE u.verdict WHEN 1 THEN 'correct' WHEN 2 THEN 'wrong' WHEN 3 THEN 'no_answer'
                      WHEN 4 THEN 'grader_error' END AS verdict,
       CASE WHEN u.verdict = 1 THEN 1 WHEN u.verdict IN (2, 3) THEN 0 END AS correct,
       (SELECT g.extracted FROM grade AS g WHERE g.sample_id = s.id
         ORDER BY g.graded_time_us DESC, g.grader DESC, g.grader_version DESC
         LIMIT 1) AS extracted,
       CASE s.finish_reason WHEN 1 THEN 'stop' WHEN 2 THEN 'length' WHEN 3 THEN 'context'
                            ELSE 'rejected' END AS finish_reason,
       s.finish_reason IN (2, 3) AS truncated,
       s.prompt_tokens AS prompt_tokens, s.completion_tokens AS completion_tokens,
       s.thinking_tokens AS thinking_tokens, s.seed AS seed,
       s.queue_us AS queue_us, s.ttft_us AS ttft_us, s.e2e_us AS e2e_us,
       s.mean_batch_size AS mean_batch_size, s.num_preemptions AS num_preemptions,
       s.epoch AS epoch, lower(hex(s.prompt_sha256)) AS prompt_sha256,
       s.finished_time_us AS finished_time_us, s.stored_time_us AS stored_time_us,
       l.worker_id AS worker_id, l.incarnation AS incarnation, l.public_id AS lease_id,
       p.hostname AS hostname, p.device AS device, p.backend AS backend,
       p.git_commit AS git_commit, p.assay_version AS assay_version,
       p.build_type AS build_type, p.engine_numerics_version AS engine_numerics_version
  FROM sample AS s
  JOIN unit AS u ON u.cell_id = s.cell_id AND u.item_index = s.item_index
                AND u.repeat = s.repeat
  JOIN cell AS c ON c.id = s.cell_id
  JOIN model AS m ON m.id = c.model_id
  JOIN method AS me ON me.id = c.method_id
  JOIN benchmark AS b ON b.id = c.benchmark_id
  JOIN item AS i ON i.benchmark_id = c.benchmark_id AND i.item_index = s.item_index
  JOIN lease AS l ON l.id = s.lease_id
  JOIN provenance AS p ON p.id = l.provenance_id;

-- CROSS JOIN fixes the order: from the few sweep_cells to their units, each looked up in the
-- baseline by primary key.
CREATE VIEW v_paired AS
SELECT s.public_id AS sweep_id, sc.cell_id AS cell_id, sc.baseline_cell_id AS baseline_cell_id,
       m.name AS model, me.method AS method, me.bits AS bits, me.label AS method_label,
       b.name AS benchmark, u.item_index AS item_index, i.name AS item, i.level AS level,
       i.subject AS subject, u.repeat AS repeat,
       CASE WHEN u.verdict = 1 THEN 1 WHEN u.verdict IN (2, 3) THEN 0 END AS correct,
       CASE WHEN bu.verdict = 1 THEN 1 WHEN bu.verdict IN (2, 3) THEN 0 END AS baseline_correct,
       CASE WHEN bu.verdict = 1 AND u.verdict IN (2, 3) THEN 'harmful'
            WHEN u.verdict = 1 AND bu.verdict IN (2, 3) THEN 'beneficial' END AS flip,
       u.finish_reason IN (2, 3) AS truncated,
       bu.finish_reason IN (2, 3) AS baseline_truncated,
       u.completion_tokens AS completion_tokens,
       bu.completion_tokens AS baseline_completion_tokens,
       u.sample_id AS sample_id, bu.sample_id AS baseline_sample_id
  FROM sweep AS s
  CROSS JOIN sweep_cell AS sc ON sc.sweep_id = s.id AND sc.baseline_cell_id IS NOT NULL
  CROSS JOIN cell AS c ON c.id = sc.cell_id
  CROSS JOIN model AS m ON m.id = c.model_id
  CROSS JOIN method AS me ON me.id = c.method_id
  CROSS JOIN benchmark AS b ON b.id = c.benchmark_id
  CROSS JOIN unit AS u ON u.cell_id = sc.cell_id AND u.item_index < sc.num_items
                      AND u.repeat < sc.num_repeats AND u.state = 3
  CROSS JOIN unit AS bu ON bu.cell_id = sc.baseline_cell_id AND bu.item_index = u.item_index
                       AND bu.repeat = u.repeat AND bu.state = 3
  LEFT JOIN item AS i ON i.benchmark_id = c.benchmark_id AND i.item_index = u.item_index;

CREATE VIEW v_difficulty AS
SELECT u.cell_id AS cell_id, m.name AS model, me.method AS method, me.bits AS bits,
       me.label AS method_label, b.name AS benchmark, i.level AS level,
       count(*) AS num_items,
       sum(u.num_samples) AS num_samples,
       sum(u.num_graded) AS num_graded,
       sum(u.num_correct) AS num_correct,
       CAST(sum(u.num_correct) AS REAL) / nullif(sum(u.num_graded), 0) AS accuracy,
       sum(u.num_truncated) AS num_truncated,
       CAST(sum(u.completion_tokens) AS REAL) / sum(u.num_samples) AS mean_completion_tokens
  FROM (SELECT cell_id, item_index,
               count(*) AS num_samples,
               sum(verdict BETWEEN 1 AND 3) AS num_graded,
               sum(verdict = 1) AS num_correct,
               sum(finish_reason IN (2, 3)) AS num_truncated,
               sum(completion_tokens) AS completion_tokens
          FROM unit WHERE state = 3 GROUP BY cell_id, item_index) AS u
  JOIN cell AS c ON c.id = u.cell_id
  JOIN model AS m ON m.id = c.model_id
  JOIN method AS me ON me.id = c.method_id
  JOIN benchmark AS b ON b.id = c.benchmark_id
  JOIN item AS i ON i.benchmark_id = c.benchmark_id AND i.item_index = u.item_index
 GROUP BY u.cell_id, i.level;

CREATE VIEW v_length AS
SELECT u.cell_id AS cell_id, m.name AS model, me.method AS method, me.bits AS bits,
       me.label AS method_label, b.name AS benchmark,
       u.num_samples AS num_samples, u.num_truncated AS num_truncated,
       CAST(u.num_truncated AS REAL) / u.num_samples AS truncated_rate,
       u.mean_completion_tokens AS mean_completion_tokens,
       u.max_completion_tokens AS max_completion_tokens,
       u.mean_completion_tokens_correct AS mean_completion_tokens_correct,
       u.mean_completion_tokens_wrong AS mean_completion_tokens_wrong,
       u.mean_thinking_tokens AS mean_thinking_tokens
  FROM (SELECT cell_id,
               count(*) AS num_samples,
               sum(finish_reason IN (2, 3)) AS num_truncated,
               avg(completion_tokens) AS mean_completion_tokens,
               max(completion_tokens) AS max_completion_tokens,
               avg(CASE WHEN verdict = 1 THEN completion_tokens END)
                 AS mean_completion_tokens_correct,
               avg(CASE WHEN verdict IN (2, 3) THEN completion_tokens END)
                 AS mean_completion_tokens_wrong,
               avg(thinking_tokens) AS mean_thinking_tokens
          FROM unit WHERE state = 3 GROUP BY cell_id) AS u
  JOIN cell AS c ON c.id = u.cell_id
  JOIN model AS m ON m.id = c.model_id
  JOIN method AS me ON me.id = c.method_id
  JOIN benchmark AS b ON b.id = c.benchmark_id;

CREATE VIEW v_latency AS
SELECT s.cell_id AS cell_id, m.name AS model, me.method AS method, me.bits AS bits,
       me.label AS method_label, b.name AS benchmark, s.device AS device,
       s.num_samples AS num_samples, s.mean_queue_us AS mean_queue_us,
       s.mean_ttft_us AS mean_ttft_us, s.max_ttft_us AS max_ttft_us,
       s.mean_e2e_us AS mean_e2e_us, s.max_e2e_us AS max_e2e_us,
       s.mean_tpot_us AS mean_tpot_us, s.mean_batch_size AS mean_batch_size,
       s.num_preemptions AS num_preemptions
  FROM (SELECT x.cell_id AS cell_id, p.device AS device,
               count(*) AS num_samples,
               avg(x.queue_us) AS mean_queue_us,
               avg(x.ttft_us) AS mean_ttft_us, max(x.ttft_us) AS max_ttft_us,
               avg(x.e2e_us) AS mean_e2e_us, max(x.e2e_us) AS max_e2e_us,
               CAST(sum(x.e2e_us - x.ttft_us) AS REAL)
                 / nullif(sum(max(x.completion_tokens - 1, 0)), 0) AS mean_tpot_us,
               avg(x.mean_batch_size) AS mean_batch_size,
               sum(x.num_preemptions) AS num_preemptions
          FROM sample AS x
          JOIN lease AS l ON l.id = x.lease_id
          JOIN provenance AS p ON p.id = l.provenance_id
         GROUP BY x.cell_id, p.device) AS s
  JOIN cell AS c ON c.id = s.cell_id
  JOIN model AS m ON m.id = c.model_id
  JOIN method AS me ON me.id = c.method_id
  JOIN benchmark AS b ON b.id = c.benchmark_id;

CREATE VIEW v_attempt AS
SELECT u.cell_id AS cell_id, m.name AS model, me.method AS method, me.bits AS bits,
       me.label AS method_label, b.name AS benchmark,
       u.num_units AS num_units, u.num_samples AS num_samples, u.num_grants AS num_grants,
       u.num_rerolls AS num_rerolls,
       CAST(u.num_rerolls AS REAL) / u.num_units AS reroll_rate,
       u.num_quarantined AS num_quarantined,
       coalesce(t.num_expired, 0) AS num_expired, coalesce(t.num_failed, 0) AS num_failed,
       coalesce(t.num_infrastructure, 0) AS num_infrastructure,
       coalesce(t.num_worker_lost, 0) AS num_worker_lost,
       coalesce(t.num_revoked, 0) AS num_revoked, coalesce(t.num_returned, 0) AS num_returned,
       coalesce(t.num_fenced, 0) AS num_fenced
  FROM (SELECT cell_id,
               count(*) AS num_units,
               sum(state = 3) AS num_samples,
               sum(num_grants) AS num_grants,
               sum(num_grants > 1) AS num_rerolls,
               sum(state = 4) AS num_quarantined
          FROM unit GROUP BY cell_id) AS u
  LEFT JOIN (SELECT cell_id,
                    sum(outcome = 'expired') AS num_expired,
                    sum(outcome = 'failed') AS num_failed,
                    sum(outcome = 'infrastructure') AS num_infrastructure,
                    sum(outcome = 'worker_lost') AS num_worker_lost,
                    sum(outcome = 'revoked') AS num_revoked,
                    sum(outcome = 'returned') AS num_returned,
                    sum(outcome = 'fenced') AS num_fenced
               FROM attempt GROUP BY cell_id) AS t ON t.cell_id = u.cell_id
  JOIN cell AS c ON c.id = u.cell_id
  JOIN model AS m ON m.id = c.model_id
  JOIN method AS me ON me.id = c.method_id
  JOIN benchmark AS b ON b.id = c.benchmark_id;

CREATE VIEW v_provenance AS
SELECT x.cell_id AS cell_id, p.git_commit AS git_commit, p.assay_version AS assay_version,
       p.build_type AS build_type, p.compiler AS compiler, p.hostname AS hostname,
       p.device AS device, p.backend AS backend,
       p.engine_numerics_version AS engine_numerics_version,
       p.driver_versions AS driver_versions, x.num_leases AS num_leases
  FROM (SELECT cell_id, provenance_id, count(*) AS num_leases
          FROM lease GROUP BY cell_id, provenance_id) AS x
  JOIN provenance AS p ON p.id = x.provenance_id;
