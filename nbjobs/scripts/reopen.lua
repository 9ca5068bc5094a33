#!lua
-- 5 n_seen  6 from_step (ordinal; '' keeps all)  7 d
if gone then return answer('GONE') end
if asked_since(ARGV[5]) then return answer('AGAIN') end   -- this call, or another's: look again
if larger(7, MAX_EVENT) then return larger(7, MAX_EVENT) end
if not END[run.state] or run.state == 'completed' then return answer('STATE') end

local refusal = ARGV[6] ~= '' and drop(whole(ARGV[6]))
if refusal then return refusal end
for _, field in ipairs({'crashes', 'failures', 'fruitless', 'at'}) do put(field, '0') end
for _, field in ipairs({'control', 'result', 'error'}) do put(field, '') end
entry('job.reopened', ARGV[7], 'queued')
put('control_n', run.n)
become('queued', now + LOST_WAKE_UP)
for i = 1, 3 do redis.call('PERSIST', KEYS[i]) end
each_map('PERSIST')
return answer('OK')
