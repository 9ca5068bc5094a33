#!lua
-- 5 at ('' now, '+ms' from now, else ms)  6 d  7.. field value (job args kind code ...)
if not gone then
  local given = {}
  for i = 7, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
  return answer(given.job == run.job and given.args == run.args and 'AGAIN' or 'EXISTS')
end
if larger(6, MAX_EVENT) then return larger(6, MAX_EVENT) end
if #ARGV > 6 + 2 * 64 then return {'TOOBIG', 'fields'} end
if #ARGV % 2 == 1 then return {'BADDATA', 'fields'} end
for i = 7, #ARGV do
  if larger(i, MAX_FIELD) then return larger(i, MAX_FIELD) end
end

redis.call('DEL', KEYS[2], KEYS[3])              -- left over from an expired run of this id
for i = 7, #ARGV, 2 do put(ARGV[i], ARGV[i + 1]) end
for _, field in ipairs({
  'fence', 'attempt', 'c', 'n', 'control_n', 'crashes', 'failures', 'fruitless', 'resumptions', 'steps', 'bytes',
}) do
  put(field, '0')
end
for _, field in ipairs({'control', 'owner', 'last_owner', 'step', 'cursor', 'done', 'total', 'view'}) do put(field, '') end
put('v', '1')
put('view_id', '0-0')

local from_now = ARGV[5]:sub(1, 1) == '+'
local time = from_now and now + num(ARGV[5]:sub(2)) or num(ARGV[5])
if time > now then
  put('at', int(time))
  if from_now then put('wait', int(time - now)) end
  entry('job.enqueued_at', ARGV[6], 'scheduled')
  become('scheduled', time)
else
  put('at', '0')
  entry('job.enqueued', ARGV[6], 'queued')
  become('queued', now + LOST_WAKE_UP)
end
return answer('OK')
