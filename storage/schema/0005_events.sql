-- Events with names beside their ids, and what of `detail` every reader asks for as columns.
CREATE VIEW v_event AS
SELECT e.id AS event_id, e.time_us AS event_time_us, e.kind AS kind,
       e.sweep_id AS sweep_id, s.name AS sweep_name,
       e.cell_id AS cell_id, m.name AS model, me.method AS method, me.bits AS bits,
       me.label AS method_label, b.name AS benchmark,
       json_extract(e.detail, '$.item_index') AS item_index, i.name AS item,
       json_extract(e.detail, '$.repeat') AS repeat,
       json_extract(e.detail, '$.lease_id') AS lease_id,
       e.worker_id AS worker_id, e.detail AS detail
  FROM event AS e
  LEFT JOIN sweep AS s ON s.public_id = e.sweep_id
  LEFT JOIN cell AS c ON c.id = e.cell_id
  LEFT JOIN model AS m ON m.id = c.model_id
  LEFT JOIN method AS me ON me.id = c.method_id
  LEFT JOIN benchmark AS b ON b.id = c.benchmark_id
  LEFT JOIN item AS i ON i.benchmark_id = c.benchmark_id
                     AND i.item_index = json_extract(e.detail, '$.item_index');
