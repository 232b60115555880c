-- A lane's beats travel as empty sections, so that the windows bring them to the worker that commits the lane.
SELECT ${channel} AS stream_name, '' AS section FROM beats;
